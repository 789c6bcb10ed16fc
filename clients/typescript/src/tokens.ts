/** Tokens: asked for when there is none, kept while they serve, asked for anew when they are refused or run out. */

/** Gives a bearer token. It may throw; then it is asked again later. */
export type TokenProvider = () => string | Promise<string>;

/** The token in use, and where the next one comes from. */
export class TokenSource {
  #token: string | undefined;
  #asked: Promise<string> | undefined;

  constructor(private readonly provider: TokenProvider) {}

  /** The token in use, asked for if there is none. Throws what the provider throws. */
  get(): Promise<string> {
    if (this.#token !== undefined) {
      return Promise.resolve(this.#token);
    }
    this.#asked ??= this.#ask().finally(() => {
      this.#asked = undefined;
    });
    return this.#asked;
  }

  /** A token doesn't serve any more: the next `get` asks for another. */
  refused(token: string): void {
    if (this.#token === token) {
      this.#token = undefined;
    }
  }

  /** Another token, whatever the one in use is. */
  renew(): Promise<string> {
    this.#token = undefined;
    return this.get();
  }

  async #ask(): Promise<string> {
    const given: unknown = await this.provider();
    if (typeof given !== "string") {
      throw new TypeError(`the token provider gave ${typeof given}, not string`);
    }
    // A token from a file often ends with a line.
    const token = given.trim();
    if (!/^[\x20-\x7e]*$/.test(token)) {
      throw new TypeError("the token provider gave what can't go into a header");
    }
    this.#token = token;
    return token;
  }
}

/** A server as a process: the program that users start, with its log and its signals. */

import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const SECRET = "a secret of thirty-two bytes or so";
const PATIENCE_MS = 30_000;

/** Waits until a condition holds, and gives what it gave. */
export async function until<T>(condition: () => T | undefined | false): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  while (performance.now() < deadline) {
    const found = condition();
    if (found) {
      return found;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`it never held: ${condition}`);
}

/** A token for a device of a user. */
export function tokenOf(user: string, device = "phone", seconds = 3600): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: "tidings",
    aud: "tidings",
    sub: user,
    device_id: device,
    iat: now,
    exp: now + seconds,
  };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

/** `tidings-server serve` with a database in a folder of its own. It may be started again after it has ended. */
export class ServerProcess {
  readonly folder = mkdtempSync(join(tmpdir(), "tidings-"));
  log: { message?: string; [key: string]: unknown }[] = [];
  port = 0;
  /** Where browsers come. */
  httpPort = 0;
  private process: ChildProcess | undefined;
  private gone: Promise<unknown> = Promise.resolve();

  /** @param settings Variables without their prefix, such as `DRAIN__GRACE_S`. */
  constructor(private readonly settings: Record<string, string> = {}) {}

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  /** Starts it and waits until it serves; once it was started, on the same ports. */
  async start(): Promise<this> {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("TIDINGS_"));
    const given = {
      GRPC__LISTEN: `127.0.0.1:${this.port}`,
      BRIDGE__LISTEN: `127.0.0.1:${this.httpPort}`,
      METRICS__ENABLED: "false",
      STORE__PATH: join(this.folder, "tidings.db"),
      AUTH__HS256_SECRET: SECRET,
      DRAIN__DELAY_SPREAD_S: "0",
      DRAIN__GRACE_S: "5",
      LOG__FORMAT: "json",
      ...this.settings,
    };
    const own = Object.entries(given).map(([name, value]) => [`TIDINGS_${name}`, value]);
    const started = spawn("python3", ["-m", "tidings_server", "serve"], {
      env: Object.fromEntries([...inherited, ...own]),
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.process = started;
    this.gone = new Promise((resolve) => started.once("close", resolve));
    this.log = [];
    createInterface({ input: started.stderr }).on("line", (line) => {
      try {
        this.log.push(JSON.parse(line));
      } catch {
        this.log.push({ message: line });
      }
    });
    const serving = await until(() => {
      if (started.exitCode !== null) {
        throw new Error(`it ended: ${JSON.stringify(this.log)}`);
      }
      return this.log.find((line) => line.message === "serving");
    });
    this.port = serving.grpc_port as number;
    this.httpPort = serving.http_port as number;
    return this;
  }

  /** Ends it with a signal and waits for that. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.process?.kill(signal);
    await this.gone;
  }

  /** As if the power had gone, for the process. */
  kill(): Promise<void> {
    return this.end("SIGKILL");
  }

  async close(): Promise<void> {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      await this.kill();
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

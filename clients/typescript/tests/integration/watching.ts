/** A client whose events are taken as they come, and checked: each log ascends by one. */

import { expect } from "vitest";
import { Client as BrowserClient } from "../../src/index.js";
import { Client, type ClientOptions, type CoreClient, type Event } from "../../src/node.js";
import { tokenOf, until } from "./server.js";

type Of<T extends Event["type"]> = Extract<Event, { type: T }>;

export class Watching {
  readonly events: Event[] = [];
  private readonly positions = new Map<string, number>();
  private taking: Promise<void> | undefined;
  private failure: unknown;

  constructor(readonly sdk: CoreClient) {}

  async open(): Promise<this> {
    await this.sdk.open();
    this.taking = this.take().catch((error) => {
      this.failure = error;
    });
    return this;
  }

  async close(): Promise<void> {
    await this.sdk.close();
    await this.taking;
    if (this.failure !== undefined) {
      throw this.failure;
    }
  }

  private async take(): Promise<void> {
    for await (const event of this.sdk.events()) {
      this.events.push(event);
      if (event.type === "gap") {
        this.positions.set(event.conversationId, event.toSeq);
      } else if ("log" in event) {
        const before = this.positions.get(event.log);
        if (before !== undefined) {
          expect(event.seq, event.log).toBe(before + 1);
        }
        this.positions.set(event.log, event.seq);
      }
    }
  }

  of<T extends Event["type"]>(type: T): Of<T>[] {
    return this.events.filter((event): event is Of<T> => event.type === type);
  }

  texts(conversationId: string): string[] {
    return this.of("message")
      .filter((message) => message.conversationId === conversationId)
      .map((message) => message.text);
  }

  async until<T>(condition: () => T | undefined | false): Promise<T> {
    return until(() => {
      if (this.failure !== undefined) {
        throw this.failure;
      }
      return condition();
    });
  }
}

type Options = Partial<ClientOptions> & { device?: string };

/** A client of a user, quick to come back; it isn't open yet. Over a WebSocket where the address is a URL. */
export function watching(address: string, user: string, options: Options = {}): Watching {
  const given = {
    tokenProvider: () => tokenOf(user, options.device),
    ...options,
    config: { backoffBase: 50, backoffCap: 500, ...options.config },
  };
  const made = address.includes("://")
    ? new BrowserClient(address, { environment: () => () => {}, ...given })
    : new Client(address, given);
  return new Watching(made);
}

/** Clients that a test has opened, and that are closed after it. */
export class Devices {
  private opened: Watching[] = [];

  constructor(private readonly server: { readonly address: string }) {}

  readonly open = async (
    user: string,
    options: Options & { address?: string } = {},
  ): Promise<Watching> => {
    const device = await watching(options.address ?? this.server.address, user, options).open();
    this.opened.push(device);
    return device;
  };

  /** Closes them; a test that expects the end of one of them takes it away before. */
  async close(): Promise<void> {
    await Promise.all(this.opened.splice(0).map((device) => device.close()));
  }

  forget(device: Watching): void {
    this.opened = this.opened.filter((one) => one !== device);
  }
}

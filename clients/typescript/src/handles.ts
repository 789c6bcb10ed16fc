/** An own message on its way, as the application holds it. */

import type { TidingsError } from "./errors.js";
import type { Outgoing } from "./outbox.js";

/** What a handle asks of its client. */
export interface HandleOwner {
  /** Why the session is over for good, or the client closed. */
  readonly ended: TidingsError | undefined;
  forgetFailed(messageId: string): void;
  discard(messageId: string): Promise<boolean>;
}

/** An own message on its way. */
export class SendHandle {
  readonly conversationId: string;
  /**
   * The id of the message. It changes at most once, before the message is first sent and only when the device's clock was
   * far ahead; a MessagePending tells.
   */
  messageId: string;
  /** Its position once it was sent. */
  seq: number | undefined;
  /** Why it failed for good. */
  error: TidingsError | undefined;
  #waiters: (() => void)[] = [];

  /** @internal */
  constructor(
    private readonly owner: HandleOwner,
    item: Outgoing,
  ) {
    this.conversationId = item.message.conversationId;
    this.messageId = item.message.messageId;
  }

  /**
   * Wait until the server has the message for good, whatever happens meanwhile; returns its position.
   *
   * Throws the TidingsError for which it was refused for good, ClientClosed when the client was closed, or why the session
   * ended. In the last two cases the message stays in the outbox and is sent by the next client that uses the state.
   */
  async sent(): Promise<number> {
    while (this.seq === undefined) {
      if (this.error !== undefined) {
        this.owner.forgetFailed(this.messageId);
        throw this.error;
      }
      if (this.owner.ended !== undefined) {
        throw this.owner.ended;
      }
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    return this.seq;
  }

  /**
   * Take the message out of the outbox; returns whether it was still there and could be taken.
   *
   * If it was sent already without a result, it may yet appear in the conversation.
   */
  cancel(): Promise<boolean> {
    return this.owner.discard(this.messageId);
  }

  /** Something became of it. @internal */
  settle(): void {
    for (const wake of this.#waiters.splice(0)) {
      wake();
    }
  }
}

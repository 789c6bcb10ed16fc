/** The contract: generated messages and services, for `client.call` and for those who store or forward them. */

export * from "./gen/tidings/v1/chat_service_pb.js";
export * from "./gen/tidings/v1/conversation_pb.js";
export * from "./gen/tidings/v1/conversation_service_pb.js";
export * from "./gen/tidings/v1/entry_pb.js";
export * from "./gen/tidings/v1/error_pb.js";
export * from "./gen/tidings/v1/event_pb.js";
export * from "./gen/tidings/v1/message_pb.js";
export * from "./gen/tidings/v1/message_service_pb.js";
export * from "./gen/tidings/v1/presence_service_pb.js";
export * from "./gen/tidings/v1/receipt_service_pb.js";

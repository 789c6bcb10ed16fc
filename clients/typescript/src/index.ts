/** Tidings for browsers. */

export * from "./common.js";

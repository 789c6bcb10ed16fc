// protoc-gen-es without what is reserved: generated code carries its descriptors, and pages would load names and numbers
// that nothing at run time asks for.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema } from "@bufbuild/protobuf/wkt";

function strip(message) {
  message.reservedName = [];
  message.reservedRange = [];
  message.nestedType.forEach(strip);
}

const request = fromBinary(CodeGeneratorRequestSchema, readFileSync(0));
for (const file of [...request.protoFile, ...request.sourceFileDescriptors]) {
  file.messageType.forEach(strip);
}
const plugin = fileURLToPath(import.meta.resolve("@bufbuild/protoc-gen-es/package.json")).replace(
  "package.json",
  "bin/protoc-gen-es",
);
const { stdout, stderr, status } = spawnSync(process.execPath, [plugin], {
  input: toBinary(CodeGeneratorRequestSchema, request),
  maxBuffer: 1 << 28,
});
process.stdout.write(stdout);
process.stderr.write(stderr);
process.exitCode = status ?? 1;

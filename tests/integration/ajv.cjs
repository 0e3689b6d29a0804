// Compiles JSON Schemas as ajv-cli and SchemaStore do: in ajv's strict mode, with ajv-formats. Prints what it refuses, a line for each.
const fs = require("node:fs");
const path = require("node:path");
const [modules, ...files] = process.argv.slice(2);
const Ajv = require(path.join(modules, "ajv/dist/2020")).default;
const addFormats = require(path.join(modules, "ajv-formats")).default;
for (const file of files) {
  const refused = [];
  const logger = { log() {}, warn: (text) => refused.push(text), error: (text) => refused.push(text) };
  for (const strict of ["log", true]) {
    const ajv = new Ajv({ strict, allErrors: true, logger });
    addFormats(ajv);
    try {
      ajv.compile(JSON.parse(fs.readFileSync(file, "utf8")));
    } catch (error) {
      refused.push(error.message);
    }
  }
  for (const text of refused) console.log(`${path.basename(file)}: ${text}`);
}

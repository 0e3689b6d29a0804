// Prints what GitHub's own parser of workflows has against a file, as a list in JSON. The first argument is the folder
// with its packages.
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { pathToFileURL } from "node:url";

// The parser imports JSON as its bundler does it, without the attribute that Node.js wants.
const load = `export const load = (url, context, next) =>
  next(url, url.endsWith(".json") ? { ...context, importAttributes: { type: "json" } } : context);`;
register(`data:text/javascript,${encodeURIComponent(load)}`);

const [packages, file] = process.argv.slice(2);
const found = `${packages}/node_modules/@actions/workflow-parser/dist/index.js`;
const { parseWorkflow, NoOperationTraceWriter, convertWorkflowTemplate } = await import(pathToFileURL(found));
const parsed = parseWorkflow({ name: "workflow", content: readFileSync(file, "utf8") }, new NoOperationTraceWriter());
const errors = parsed.context.errors.getErrors().map((error) => error.message);
if (errors.length === 0) {
  const converted = await convertWorkflowTemplate(parsed.context, parsed.value);
  errors.push(...(converted.errors ?? []).map((error) => error.Message));
}
console.log(JSON.stringify(errors));

// Evaluates modules for the tests, each in a world of its own: a line of JSON in, {name, text}; a line of JSON out,
// with the configuration that was given to defineWorker, or `data` for a script, and what else there is afterwards.
import { createInterface } from 'node:readline';
import vm from 'node:vm';

async function evaluate({ name, text }) {
  const context = vm.createContext({});
  const names = () => vm.runInContext('Object.getOwnPropertyNames(globalThis).concat(Object.getOwnPropertyNames(Object.prototype))', context);
  const before = new Set(names());
  const calls = [];
  const module = new vm.SourceTextModule(text, { context });
  await module.link((specifier) => {
    if (name !== 'index.ts' || specifier !== '../../runtime/tiny.js') {
      throw new Error(`it imports ${specifier}`);
    }
    return new vm.SyntheticModule(['defineWorker'], function () {
      this.setExport('defineWorker', (config) => calls.push(JSON.stringify(config)));
    }, { context });
  });
  await module.evaluate({ timeout: 10_000 });
  const exported = Object.keys(module.namespace);
  return {
    values: name === 'index.ts' ? calls : [JSON.stringify(module.namespace.data)],
    exported,
    added: names().filter((name) => !before.has(name)),
  };
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const answer = await evaluate(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

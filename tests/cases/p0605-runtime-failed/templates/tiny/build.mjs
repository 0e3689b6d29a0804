console.error("✘ [ERROR] Expected \";\" but found \"oops\"\n\n    runtime.js:2:9:\n      2 │   fetch: oops");
process.exit(1);

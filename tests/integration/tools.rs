//! Shows: npm packages that the tests use: tsc, wrangler, node.

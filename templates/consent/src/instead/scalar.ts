// Replaces @scalar/hono-api-reference, the page at /docs, which a worker does not serve.

export const apiReference = () => (_context: unknown, next: () => Promise<void>) => next();

// Replaces hono-openapi, of which c15t's routes only use the validation. The descriptions that it adds to the routes
// are read only by /spec.json, which a worker does not serve; they would add zod and three schema converters.

import { sValidator } from "@hono/standard-validator";

export const validator = sValidator;
export const resolver = (schema: unknown) => schema;
export const describeRoute = () => (_context: unknown, next: () => Promise<void>) => next();
export const openAPIRouteHandler = () => describeRoute();

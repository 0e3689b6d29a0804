// Replaces the chunk of @c15t/backend that contains its telemetry and the vendor list of the IAB framework. Both are
// off in a worker; this is what c15t does when they are off.

export function extractErrorMessage(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0)
    return `AggregateError: ${error.errors.map(extractErrorMessage).join("; ")}`;
  return error instanceof Error ? error.message || error.name : String(error);
}

export const createTelemetryOptions = () => ({ enabled: false });
export const isTelemetryEnabled = () => false;
export const getMetrics = () => undefined;
export const getTraceContext = () => null;
export const createRequestSpan = () => null;
export const withDatabaseSpan = async (_attributes: unknown, operation: () => unknown) => operation();

const off = () => {
  throw new Error("telemetry and IAB are off");
};
export { off as createGVLResolver, off as handleSpanError, off as withSpanContext };

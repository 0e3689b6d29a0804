// Writes lines to a worker's log. Doesn't decide what is logged.

import type { DispatcherConfig } from "./config.ts";

const levels = ["debug", "info", "warn", "error"] as const;
export type Level = (typeof levels)[number];
export type Log = (level: Level, message: string, fields?: Record<string, unknown>) => void;

/** One JSON line per event, none below the worker's level. */
export function createLog({ worker, environment, logLevel }: DispatcherConfig): Log {
  const least = levels.indexOf(logLevel);
  return (level, message, fields) => {
    if (levels.indexOf(level) < least) return;
    console[level](JSON.stringify({ level, message, worker, environment, ...fields }));
  };
}

/** An error's own words. */
export const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

// Writes lines to a worker's log. Doesn't decide what is logged.

import type { WorkerConfig } from "./config.ts";

const levels = ["debug", "info", "warn", "error"] as const;
export type Level = (typeof levels)[number];
export type Log = (level: Level, message: string, fields?: Record<string, unknown>) => void;

/** One JSON line per event, none below the customer's level. */
export function createLog({ worker, customer, environment, logLevel }: WorkerConfig): Log {
  const least = levels.indexOf(logLevel);
  return (level, message, fields) => {
    if (levels.indexOf(level) < least) return;
    console[level](JSON.stringify({ level, message, worker, customer, environment, ...fields }));
  };
}

/** The part of an error that may be logged: its name and message, never the values around it. */
export const describe = (error: unknown): { error: string; reason: string } =>
  error instanceof Error
    ? { error: error.name, reason: error.message }
    : { error: "Error", reason: String(error) };

// Replaces semver, with which fumadb orders the versions of c15t's schema. Those are plain releases; fumadb rejects an
// invalid version, so anything else fails at once.

interface Version {
  numbers: [number, number, number];
  prerelease: never[];
}

export function parse(text: string): Version | null {
  const match = /^(\d+)\.(\d+)\.(\d+)$/.exec(text);
  return match && { numbers: [Number(match[1]), Number(match[2]), Number(match[3])], prerelease: [] };
}

export const valid = (text: string): string | null => (parse(text) ? text : null);

export function compare(a: string, b: string): number {
  const [left, right] = [parse(a)?.numbers ?? [], parse(b)?.numbers ?? []];
  const differs = left.findIndex((number, place) => number !== right[place]);
  return differs < 0 ? 0 : Math.sign(left[differs]! - right[differs]!);
}

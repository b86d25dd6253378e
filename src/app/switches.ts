/**
 * Which routes wait for a setting. Callers: compose.ts, and what explains the policy without a server.
 */
import { flagOf, type Settings } from "#config/settings.ts";
import type { AnyRoute } from "#http/route.ts";
import type { RouteFacts } from "#policy/explain.ts";
import type { Services } from "#routes/index.ts";

/** @returns the settings that would have to be on; undefined: the route exists */
export function switchedOff({ switchedBy }: AnyRoute<Services>, settings: Settings): string | undefined {
  if (switchedBy === undefined) return undefined;
  const off = (["enableLora", switchedBy] as const).filter((name) => !settings[name]);
  return off.length === 0 ? undefined : off.map((name) => `--${flagOf(name)}`).join(" and ");
}

export function routeFacts(routes: readonly AnyRoute<Services>[], settings: Settings): readonly RouteFacts[] {
  return routes.map((route) => {
    const { method, path, plane, access } = route;
    const offBy = switchedOff(route, settings);
    return { method, path, plane, access, ...(offBy === undefined ? {} : { offBy }) };
  });
}

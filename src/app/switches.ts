/**
 * Which routes wait for a setting. Callers: compose.ts, and what explains the policy without a server.
 */
import { flagOf, type SettingName, type Settings } from "#config/settings.ts";
import { type AnyRoute, onBothListeners, type RouteSwitch } from "#http/route.ts";
import type { RouteFacts } from "#policy/explain.ts";
import type { Services } from "#routes/index.ts";

/** switch → the settings that have to be on, or given, all of them. */
const SWITCHED_BY: Readonly<Record<RouteSwitch, readonly SettingName[]>> = {
  allowRuntimeLoraUpdating: ["enableLora", "allowRuntimeLoraUpdating"],
  serverDevMode: ["serverDevMode"],
  enableSleepMode: ["enableSleepMode"],
  enableFaultTolerance: ["enableFaultTolerance"],
  enableTokenizerInfoEndpoint: ["enableTokenizerInfoEndpoint"],
  weightRoots: ["weightRoots"],
  profileDir: ["profileDir"],
};

/** @returns the settings that would have to be on; undefined: the route exists */
export function switchedOff({ switchedBy }: AnyRoute<Services>, settings: Settings): string | undefined {
  if (switchedBy === undefined) return undefined;
  const off = SWITCHED_BY[switchedBy].filter((name) => !isOn(settings[name]));
  return off.length === 0 ? undefined : off.map((name) => `--${flagOf(name)}`).join(" and ");
}

/** A switch is on; a text or a list is given. */
function isOn(value: Settings[SettingName]): boolean {
  return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
}

/** Where a route stands: on its listener, or on both where the operator opened it. */
export function placed(route: AnyRoute<Services>, settings: Settings): AnyRoute<Services> {
  return route.publicBy !== undefined && settings[route.publicBy] ? onBothListeners(route) : route;
}

export function routeFacts(routes: readonly AnyRoute<Services>[], settings: Settings): readonly RouteFacts[] {
  return routes.map((route) => {
    const { method, path, plane, access } = placed(route, settings);
    const offBy = switchedOff(route, settings);
    return { method, path, plane, access, ...(offBy === undefined ? {} : { offBy }) };
  });
}

/**
 * The rows of the settings table about how requests are spread over the servers behind this one, and when one of them is
 * out. Spread into SETTINGS, under its rules.
 */
import { integer, seconds } from "./kinds.ts";

const UPSTREAMS = "Upstreams";

export const BALANCE_SETTINGS = {
  upstreamHealthInterval: seconds(5, [0, 3600], {
    section: UPSTREAMS,
    doc: "Between two looks at an upstream's /health; 0: none.",
  }),
  upstreamHealthTimeout: seconds(5, [0.01, 120], { section: UPSTREAMS, doc: "For what such a look asks." }),
  upstreamHealthFailures: integer(2, [1, 100], {
    section: UPSTREAMS,
    doc: "Looks that fail one after the other before an upstream is out.",
  }),
  upstreamSlowStart: seconds(30, [0, 3600], {
    section: UPSTREAMS,
    doc: "In so long an upstream that is new to a pool at work, or back, comes from a tenth of its weight to all of it.",
  }),
  upstreamEjectAfter: integer(5, [1, 10_000], {
    section: UPSTREAMS,
    doc: "Requests that fail one after the other before an upstream is put out for a while.",
  }),
  upstreamEjectPercent: integer(50, [1, 100], {
    section: UPSTREAMS,
    doc: "Or so many of a hundred of its requests within half a minute, where there were --upstream-eject-least.",
  }),
  upstreamEjectLeast: integer(20, [1, 1_000_000], {
    section: UPSTREAMS,
    doc: "Requests within half a minute of which --upstream-eject-percent counts.",
  }),
  upstreamEjectTime: seconds(5, [0.01, 3600], {
    section: UPSTREAMS,
    doc: "How long it is out the first time; each time after it twice as long.",
  }),
  upstreamEjectMaxTime: seconds(300, [0.01, 86_400], {
    section: UPSTREAMS,
    doc: "How long it is out at most.",
  }),
  upstreamMaxEjectedPercent: integer(50, [0, 100], {
    section: UPSTREAMS,
    doc: "Of a model's upstreams that are out by it at once, rounded down; 0: none ever.",
  }),
  upstreamAffinityPercent: integer(150, [0, 10_000], {
    section: UPSTREAMS,
    doc: "A prompt goes to the upstream that saw its beginning last, up to so much of the least load; 0: beginnings are not looked at.",
  }),
  upstreamAffinityTokens: integer(8192, [0, 10_000_000], {
    section: UPSTREAMS,
    doc: "And up to so many outstanding tokens more.",
  }),
} as const;

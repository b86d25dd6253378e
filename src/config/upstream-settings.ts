/**
 * The rows of the settings table about the servers behind this one. Spread into SETTINGS, under its rules.
 */
import { BALANCE_SETTINGS } from "./balance-settings.ts";
import { integer, list, seconds, string, structure, switched } from "./kinds.ts";

const UPSTREAMS = "Upstreams";

export const UPSTREAM_SETTINGS = {
  upstream: list("url", {
    section: UPSTREAMS,
    doc: "Servers that answer instead of an engine here: http(s)://host:port, unix:/path, dns+http(s)://name:port, dns+srv(s)://name (docs/upstreams.md).",
  }),
  models: structure({
    section: UPSTREAMS,
    doc: "Models and what answers each, best in the config file: a list of name, aliases, upstreams (url, weight, label), upstream-model, or backend: local. Of these flags key-file, ca, cert, cert-key, server-name and all with a number may stand there without upstream-, for one model.",
  }),
  upstreamModel: string(undefined, "name", {
    section: UPSTREAMS,
    doc: "What the servers of --upstream call the model.",
    fallbackDoc: "the name that clients use",
  }),
  upstreamKeyFile: string(undefined, "file", {
    section: UPSTREAMS,
    doc: "The key for the upstreams, in a file readable by its owner alone. Read again when it changes, as the files for TLS are.",
  }),
  upstreamCa: string(undefined, "file", {
    section: UPSTREAMS,
    doc: "PEM: the authorities that vouch for the upstreams, in place of the system's.",
  }),
  upstreamCert: string(undefined, "file", {
    section: UPSTREAMS,
    doc: "PEM: the certificate that this server shows to the upstreams.",
  }),
  upstreamCertKey: string(undefined, "file", {
    section: UPSTREAMS,
    doc: "PEM: that certificate's key, readable by its owner alone.",
  }),
  upstreamServerName: string(undefined, "name", {
    section: UPSTREAMS,
    doc: "The name that an upstream's certificate has to have.",
    fallbackDoc: "the URL's host",
  }),
  upstreamPlainAnywhere: switched(false, {
    section: UPSTREAMS,
    doc: "Plain http to upstreams at public addresses, too.",
    loosens: "prompts, answers and the upstream key travel in the clear across public networks",
  }),
  upstreamPassFields: list("field", {
    section: UPSTREAMS,
    doc: "Fields of bodies that go on to upstreams though this program does not know them; others are taken out.",
    loosens: "what such a field does at the upstream is judged by nobody",
  }),
  upstreamMaxRequests: integer(256, [1, 4096], {
    section: UPSTREAMS,
    doc: "Requests at one upstream at once, each on a connection of its own.",
  }),
  upstreamMaxWaiting: integer(1024, [0, 100_000], {
    section: UPSTREAMS,
    doc: "Requests of a model that wait while its upstreams are full; over it the answer is 503.",
  }),
  upstreamMaxWait: seconds(30, [0.001, 3600], { section: UPSTREAMS, doc: "How long such a request waits." }),
  upstreamConnectTimeout: seconds(5, [0.01, 120], {
    section: UPSTREAMS,
    doc: "For a connection to an upstream, TLS included.",
  }),
  upstreamFirstByteTimeout: seconds(600, [0.01, 86_400], {
    section: UPSTREAMS,
    doc: "From sending a request to the head of its answer.",
  }),
  upstreamIdleTimeout: seconds(300, [0.01, 86_400], {
    section: UPSTREAMS,
    doc: "Between two pieces of an upstream's answer.",
  }),
  upstreamTimeout: seconds(3600, [0.01, 86_400], { section: UPSTREAMS, doc: "For all of an upstream's answer." }),
  upstreamRetryPercent: integer(20, [0, 100], {
    section: UPSTREAMS,
    doc: "Tries beyond the first, of a model's requests at most; before the first byte only.",
  }),
  upstreamRetriesPerSecond: integer(3, [0, 1000], {
    section: UPSTREAMS,
    doc: "Tries beyond the first that there are a second, however few requests.",
  }),
  ...BALANCE_SETTINGS,
  upstreamDnsInterval: seconds(30, [1, 3600], {
    section: UPSTREAMS,
    doc: "After so long a name of upstreams is looked up again at the latest.",
  }),
} as const;

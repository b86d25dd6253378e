/**
 * The rows of the settings table about what this server fetches. Part of settings.ts, which alone reads it.
 */
import { bytes, choice, integer, list, numbers, seconds, string, switched } from "./kinds.ts";

const FETCHING = "What is fetched";
const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

export const EGRESS_SETTINGS = {
  allowedMediaDomains: list("domain", {
    section: FETCHING,
    doc: "Hosts that media URLs of requests may name: example.org for itself, .example.org for what is below it; none, and no media URLs, without it.",
    loosens: "requests make this server ask these hosts",
  }),
  mediaUrlAllowRedirects: switched(false, {
    section: FETCHING,
    doc: "Follow up to five redirects of media URLs, each judged as if it had been asked for.",
    variables: ["VLLM_MEDIA_URL_ALLOW_REDIRECTS"],
    loosens: "an allowed host may lead to every other",
  }),
  mediaAllowHttp: switched(false, {
    section: FETCHING,
    doc: "Media URLs without TLS, too.",
    loosens: "media can be read and changed on their way",
  }),
  mediaPorts: numbers([1, 65_535], {
    section: FETCHING,
    doc: "Ports that media URLs may name.",
    fallbackDoc: "443, and 80 with --media-allow-http",
    loosens: "other services of these hosts can be asked",
  }),
  egressRefusedNetworks: list("network", {
    section: FETCHING,
    doc: "CIDR blocks that nothing is fetched from, besides all that are not public: a local NAT64 prefix, public addresses of your own.",
  }),
  allowedLocalMediaPath: string(undefined, "folder", {
    section: FETCHING,
    doc: "Folder that file: URLs of requests may name files of; without it there are none.",
    loosens: "every caller can use every medium in that folder",
  }),
  imageFetchTimeout: seconds(5, [0.1, 600], {
    section: FETCHING,
    doc: "For an image, from the request on, its wait for a turn included.",
    variables: ["VLLM_IMAGE_FETCH_TIMEOUT"],
  }),
  audioFetchTimeout: seconds(10, [0.1, 600], {
    section: FETCHING,
    doc: "The same for audio.",
    variables: ["VLLM_AUDIO_FETCH_TIMEOUT"],
  }),
  videoFetchTimeout: seconds(30, [0.1, 600], {
    section: FETCHING,
    doc: "The same for a video.",
    variables: ["VLLM_VIDEO_FETCH_TIMEOUT"],
  }),
  maxImageBytes: bytes(20 * MIB, [1024, GIB], { section: FETCHING, doc: "An image's file." }),
  maxAudioBytes: bytes(25 * MIB, [1024, GIB], { section: FETCHING, doc: "An audio file." }),
  maxVideoBytes: bytes(64 * MIB, [1024, GIB], { section: FETCHING, doc: "A video's file." }),
  maxImagePixels: integer(40_000_000, [1, 1_000_000_000], {
    section: FETCHING,
    doc: "Pixels of an image, all its frames together, by its headers.",
    variables: ["VLLM_MAX_IMAGE_PIXELS"],
  }),
  maxImageFrames: integer(256, [1, 100_000], { section: FETCHING, doc: "Frames of an animated image." }),
  maxImageAspectRatio: integer(200, [1, 100_000], { section: FETCHING, doc: "An image's longer side by its shorter." }),
  maxRequestMedia: integer(16, [1, 1000], { section: FETCHING, doc: "Media of one request." }),
  maxRequestMediaBytes: bytes(64 * MIB, [1024, 4 * GIB], { section: FETCHING, doc: "Their files together." }),
  mediaConcurrency: integer(8, [1, 1024], {
    section: FETCHING,
    doc: "Media that are fetched at once; a quarter of them at most for one tenant. Eight times as many wait.",
    variables: ["VLLM_MEDIA_LOADING_THREAD_COUNT"],
  }),
  mmHasherAlgorithm: choice("sha256", ["sha256", "sha512", "blake3"], {
    section: FETCHING,
    doc: "What media are told apart by; blake3 is no approved algorithm where only those may be used.",
    variables: ["VLLM_MM_HASHER_ALGORITHM"],
  }),
  mediaCacheDir: string(undefined, "folder", {
    section: FETCHING,
    doc: "Keep fetched media there (mode 0700), encrypted, each for its tenant alone.",
    variables: ["VLLM_MEDIA_CACHE"],
  }),
  mediaCacheBytes: bytes(256 * MIB, [MIB, 1024 * GIB], { section: FETCHING, doc: "Room for them at most." }),
  mediaCacheAge: seconds(86_400, [1, 30 * 86_400], { section: FETCHING, doc: "How long they are kept." }),
  mediaCacheKeyFile: string(undefined, "file", {
    section: FETCHING,
    doc: "Key of 32 bytes or more for them (mode 0600), so that they outlive the start.",
    fallbackDoc: "a key of this start",
  }),
  batchUrlHosts: list("host", {
    section: FETCHING,
    doc: "Hosts (host, host:port) that run-batch may get its input from and put its output to, over https; none, and local files only, without it.",
    loosens: "the requests and answers of a batch go over the network",
  }),
} as const;

/**
 * Parts of messages that are no text: none is dropped while the rest is answered.
 */

const URL = "https://a.example/b";
const CHAT: readonly unknown[] = [
  { type: "image_url", image_url: { url: URL } },
  { image_url: URL },
  { type: "image_embeds", image_embeds: "AA==" },
  { type: "image_pil", image_pil: "AA==" },
  { type: "input_audio", input_audio: { data: "AA==", format: "wav" } },
  { type: "audio_url", audio_url: { url: URL } },
  { type: "audio_embeds", audio_embeds: "AA==" },
  { type: "video_url", video_url: { url: URL } },
  { type: "file", file: { file_id: "f" } },
  { type: "tool_reference", tool_name: "f" },
];

const MESSAGES: readonly unknown[] = [
  { type: "image", source: { type: "url", url: URL } },
  { type: "document", source: { type: "text", media_type: "text/plain", data: "a" } },
  { type: "search_result", source: URL, title: "t", content: [] },
  { type: "tool_reference", tool_name: "f" },
  { type: "tool_use", id: "i", name: "f", input: {} },
];

const RESPONSES: readonly unknown[] = [
  { type: "item_reference", id: "i" },
  { type: "mcp_call", id: "i", name: "f", server_label: "s", arguments: "{}" },
  { type: "code_interpreter_call", id: "i", code: "1" },
  { type: "web_search_call", id: "i" },
  { type: "message", role: "user", content: [{ type: "input_image", image_url: URL }] },
  { type: "message", role: "user", content: [{ type: "input_file", file_id: "f" }] },
];

/** Route, the place of the list, its entry. */
export const PARTS: readonly (readonly [route: string, place: string, parts: readonly unknown[]])[] = [
  ["POST /v1/chat/completions", "messages.0.content", CHAT],
  ["POST /v1/chat/completions/render", "messages.0.content", CHAT],
  ["POST /v1/messages", "messages.0.content", MESSAGES],
  ["POST /v1/messages/count_tokens", "messages.0.content", MESSAGES],
  ["POST /v1/responses", "input", RESPONSES],
  ["POST /rerank", "query.content", CHAT],
];

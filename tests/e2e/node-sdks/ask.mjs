// The Node SDKs, each asked the same things in its own words (`sdks.py` beside this folder says them in Python). Reads JSON from stdin:
// {url, key, given: {...}, jobs: [{sdk, front, model, prompt, stream, tools, image, schema, think}]}, and prints one line for each job.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { readFileSync } from "node:fs";
import OpenAI from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const { url, key, given, jobs } = JSON.parse(readFileSync(0, "utf8"));
const { png, schema, parameters, name, description, result } = given;
const dataUrl = `data:image/png;base64,${png}`;
const openai = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0, timeout: 20000 });
const anthropic = new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0, timeout: 20000 });

async function chat(job) {
  const image = { type: "image_url", image_url: { url: dataUrl } };
  const content = job.image ? [{ type: "text", text: job.prompt }, image] : job.prompt;
  const messages = [{ role: "system", content: "Be brief." }, { role: "user", content }];
  const asked = { model: job.model, messages };
  if (job.tools) asked.tools = [{ type: "function", function: { name, description, parameters, strict: true } }];
  if (job.schema) asked.response_format = { type: "json_schema", json_schema: { name: "weather", schema, strict: true } };
  if (job.think) asked.reasoning_effort = "high";
  const got = { pieces: 0, thought: "", calls: [] };
  const complete = async () => {
    if (!job.stream) return openai.chat.completions.create(asked);
    const stream = openai.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
    stream.on("chunk", (chunk) => (got.thought += chunk.choices[0]?.delta?.reasoning_content ?? ""));
    stream.on("content", () => (got.pieces += 1));
    return stream.finalChatCompletion();
  };
  const { choices: [{ message }], usage } = await complete();
  got.text = message.content ?? "";
  got.thought ||= message.reasoning_content ?? "";
  if (usage) [got.input, got.output] = [usage.prompt_tokens, usage.completion_tokens];
  got.calls = (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  if (got.calls.length) {
    messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: result });
    got.said = (await complete()).choices[0].message.content;
  }
  return got;
}

async function responses(job) {
  const content = [{ type: "input_text", text: job.prompt }];
  if (job.image) content.push({ type: "input_image", image_url: dataUrl, detail: "auto" });
  const asked = { model: job.model, input: [{ role: "user", content }], instructions: "Be brief.", store: false };
  if (job.tools) asked.tools = [{ type: "function", name, description, parameters, strict: true }];
  if (job.schema) asked.text = { format: { type: "json_schema", name: "weather", schema, strict: true } };
  if (job.think) asked.reasoning = { effort: "high", summary: "auto" };
  const got = { pieces: 0, thought: "", calls: [] };
  const respond = async () => {
    if (!job.stream) return openai.responses.create(asked);
    const stream = openai.responses.stream(asked);
    stream.on("response.output_text.delta", () => (got.pieces += 1));
    return stream.finalResponse();
  };
  const response = await respond();
  const text = (one) => one.output.filter((item) => item.type === "message").map((item) => item.content[0].text).join("");
  got.text = text(response);
  [got.input, got.output] = [response.usage.input_tokens, response.usage.output_tokens];
  for (const item of response.output) {
    if (item.type === "reasoning") got.thought += item.summary.map((part) => part.text).join("");
    if (item.type !== "function_call") continue;
    got.calls.push([item.name, JSON.parse(item.arguments)]);
    const call = { type: "function_call", call_id: item.call_id, name: item.name, arguments: item.arguments };
    asked.input.push(call, { type: "function_call_output", call_id: item.call_id, output: result });
  }
  if (got.calls.length) got.said = text(await respond());
  return got;
}

async function messages(job) {
  const content = [{ type: "text", text: job.prompt }];
  if (job.image) content.push({ type: "image", source: { type: "base64", media_type: "image/png", data: png } });
  const asked = { model: job.model, max_tokens: 4096, system: "Be brief.", messages: [{ role: "user", content }] };
  if (job.tools) asked.tools = [{ name, description, input_schema: parameters }];
  if (job.schema) asked.output_config = { format: { type: "json_schema", schema } };
  if (job.think) asked.thinking = { type: "enabled", budget_tokens: 2048 };
  const got = { text: "", pieces: 0, thought: "", calls: [] };
  const say = async () => {
    if (!job.stream) return anthropic.messages.create(asked);
    const stream = anthropic.messages.stream(asked);
    stream.on("text", () => (got.pieces += 1));
    return stream.finalMessage();
  };
  const message = await say();
  [got.input, got.output] = [message.usage.input_tokens, message.usage.output_tokens];
  const results = [];
  for (const block of message.content) {
    if (block.type === "text") got.text += block.text;
    if (block.type === "thinking") got.thought += block.thinking;
    if (block.type !== "tool_use") continue;
    got.calls.push([block.name, block.input]);
    results.push({ type: "tool_result", tool_use_id: block.id, content: result });
  }
  if (got.calls.length) {
    asked.messages.push({ role: "assistant", content: message.content }, { role: "user", content: results });
    got.said = (await say()).content.map((block) => block.text ?? "").join("");
  }
  return got;
}

const makers = {
  chat: (model) => createOpenAI({ apiKey: key, baseURL: `${url}/v1` }).chat(model),
  responses: (model) => createOpenAI({ apiKey: key, baseURL: `${url}/v1` }).responses(model),
  messages: (model) => createAnthropic({ apiKey: key, baseURL: `${url}/v1` })(model),
  generate: (model) => createGoogleGenerativeAI({ apiKey: key, baseURL: `${url}/v1beta` })(model),
};

async function vercel(job) {
  const content = [{ type: "text", text: job.prompt }];
  if (job.image) content.push({ type: "image", image: Buffer.from(png, "base64"), mediaType: "image/png" });
  const asked = {
    model: makers[job.front](job.model),
    system: "Be brief.",
    messages: [{ role: "user", content }],
    maxRetries: 0,
    providerOptions: { anthropic: { structuredOutputMode: "outputFormat" }, openai: { store: false } },
  };
  if (job.tools) {
    asked.tools = { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute: () => result }) };
    asked.stopWhen = stepCountIs(2);
  }
  if (job.schema) asked.output = Output.object({ schema: jsonSchema(schema), name: "weather" });
  if (job.think) {
    asked.providerOptions = {
      openai: { store: false, reasoningEffort: "high", reasoningSummary: "auto", forceReasoning: true },
      anthropic: { thinking: { type: "enabled", budgetTokens: 2048 } },
      google: { thinkingConfig: { includeThoughts: true, thinkingBudget: 2048 } },
    };
  }
  let answer;
  let pieces = 0;
  if (job.stream) {
    let failure;
    answer = streamText({ ...asked, onError: ({ error }) => (failure = error) });
    for await (const _ of answer.textStream) pieces += 1;
    if (failure) throw failure;
  } else answer = await generateText(asked);
  const steps = await answer.steps;
  const usage = steps[0].usage;
  return {
    text: steps[0].text,
    pieces,
    calls: steps[0].toolCalls.map((call) => [call.toolName, call.input]),
    said: steps.length > 1 ? steps[1].text : "",
    thought: steps[0].reasoningText ?? "",
    input: usage.inputTokens ?? 0,
    output: usage.outputTokens ?? 0,
  };
}

const own = { chat, responses, messages };
for (const job of jobs) {
  let got;
  try {
    got = await (job.sdk === "ai" ? vercel(job) : own[job.front](job));
  } catch (error) {
    got = { error: `${error.name}: ${error.message} ${error.responseBody ?? ""}`.slice(0, 500) };
  }
  console.log(JSON.stringify(got));
}

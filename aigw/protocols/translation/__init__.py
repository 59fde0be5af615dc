"""Translation between wire shapes, by way of `aigw/canonical.py`. This is the list of what is built in: the operation's name
and the class that reads and writes it. A shape's module is imported when it is first needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from aigw.protocols.translation.contract import Shape, Translator

TRANSLATORS: dict[str, str] = {
    # Conversations. A provider that has several of these shapes, and not the caller's, is asked in the first of them, after its
    # own: OpenAI's chat before Responses, which fewer servers have whole.
    "chat": "openai_chat:OpenAIChat",
    "completions": "openai_completions:OpenAICompletions",
    "responses": "openai_responses:OpenAIResponses",
    "messages": "anthropic_messages:Messages",
    "generate": "gemini:Generate",
    "generate_array": "gemini:GenerateArray",
    "converse": "bedrock_converse:Converse",
    "cohere_chat": "cohere:CohereChat",
    "ollama_chat": "ollama:OllamaChat",
    "dify": "dify:Dify",
    "coze": "coze:Coze",
    "replicate": "replicate:Replicate",
    "triton": "triton:Triton",
    "deepl": "deepl:DeepL",
    # Counts of tokens.
    "count_tokens": "counts:CountMessages",
    "count_gemini": "counts:CountGemini",
    # Embeddings.
    "embeddings": "embeddings:OpenAIEmbeddings",
    "embed_gemini_batch": "embeddings:GeminiEmbeddings",
    "embed_gemini": "embeddings:GeminiEmbedding",
    "cohere_embed": "cohere:CohereEmbeddings",
    "ollama_embed": "ollama:OllamaEmbeddings",
    # Ranks.
    "rerank": "rerank:Rerank",
    "voyage_rerank": "rerank:VoyageRerank",
    "invoke_embeddings": "cloud_embeddings:InvokeEmbeddings",
    "predict_embeddings": "cloud_embeddings:PredictEmbeddings",
}


def translator(operation: str) -> Translator:
    """The shape of an operation that callers can ask for. Raises KeyError for one that cannot be translated."""
    return cast("Translator", shape(operation))


@cache
def shape(operation: str) -> Shape:
    """The shape in which a provider is asked. Raises KeyError for an operation that has none."""
    module, _, name = TRANSLATORS[operation].partition(":")
    found = getattr(import_module(f"aigw.protocols.translation.{module}"), name)
    return cast("Shape", found())

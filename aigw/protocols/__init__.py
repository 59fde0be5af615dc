"""Wire dialects: bytes in, facts out. Sans-IO; knows no provider and no socket. This is the list of what is built in."""

from aigw.protocols.anthropic_messages import AnthropicMessages
from aigw.protocols.dialect import Dialect
from aigw.protocols.gemini import Gemini, GeminiArray
from aigw.protocols.openai_chat import OpenAIChat
from aigw.protocols.openai_responses import OpenAIResponses
from aigw.protocols.raw import Raw

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (OpenAIChat(), OpenAIResponses(), AnthropicMessages(), Gemini(), GeminiArray(), Raw())
}

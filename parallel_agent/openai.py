"""Models at servers that speak OpenAI's chat completions: OpenAI, Ollama, vLLM, llama.cpp, others.

`LlmAgent` takes such a model by its name alone (``model="ollama/qwen2.5:7b"``); `OpenAIModel` is
for an address, a key or headers of its own. Needs the extra ``openai``; without it, importing this
module fails with an error that says so.
"""

from __future__ import annotations

from parallel_agent.llm.openai_model import PROVIDERS, OpenAIModel, Provider

__all__ = ["PROVIDERS", "OpenAIModel", "Provider"]

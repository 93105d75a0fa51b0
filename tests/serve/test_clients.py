"""Programs that nobody here wrote, as their own pages say they are used: each gets the model's answer."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def hello(served):
    """What the server answers to "Hello"."""
    import httpx

    asks = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    answer = httpx.post(f"{served[1]}/v1/chat/completions", json=asks, timeout=60).json()
    return answer["choices"][0]["message"]["content"]


def done(*command, **more):
    """What a program prints."""
    env = {**os.environ, **more}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=env).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(address, hello):
    asks = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    common = ("curl", "-sS", f"{address}/v1/chat/completions", "-H", "content-type: application/json", "-d")
    whole = json.loads(done(*common, json.dumps(asks)))
    assert whole["choices"][0]["message"]["content"] == hello
    lines = done(*common, json.dumps({**asks, "stream": True}), "-N").split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == hello


def test_ollama(address, hello):
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=address)
    asks = {"model": "small", "options": {"temperature": 0, "num_predict": 60}}
    messages = [{"role": "user", "content": "Hello"}]
    assert client.chat(**asks, messages=messages).message.content == hello
    assert (
        "".join(part.message.content for part in client.chat(**asks, messages=messages, stream=True)) == hello
    )
    assert client.generate(**asks, prompt="Hello").response == hello
    assert [model.model for model in client.list().models] == ["small"]
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 99}},
        "required": ["age"],
    }
    assert "age" in json.loads(client.chat(**asks, messages=messages, format=schema).message.content)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    told = [*messages, {"role": "assistant", "tool_calls": [call]}]
    told += [{"role": "tool", "tool_name": "weather", "content": "12 degrees"}]
    assert client.chat(**asks, messages=told, tools=[tool]).done
    with pytest.raises(ollama.ResponseError, match="The model 'none' does not exist"):
        client.chat(model="none", messages=messages)


def test_langchain(address, hello):
    langchain_openai = pytest.importorskip("langchain_openai")
    pydantic = pytest.importorskip("pydantic")
    about = {
        "model": "small",
        "base_url": f"{address}/v1",
        "api_key": "any",
        "temperature": 0,
        "max_tokens": 60,
    }
    model = langchain_openai.ChatOpenAI(**about)
    assert model.invoke("Hello").content == hello
    assert "".join(part.content for part in model.stream("Hello")) == hello
    assert [one.content for one in model.batch(["Hello", "Hello"])] == [hello, hello]

    class Weather(pydantic.BaseModel):
        """The weather in a city."""

        city: str = pydantic.Field(max_length=5)

    called = model.bind_tools([Weather], tool_choice="required").invoke("Hello")
    assert called.tool_calls[0]["name"] == "Weather" and "city" in called.tool_calls[0]["args"]
    for method in ("json_schema", "function_calling"):
        assert isinstance(model.with_structured_output(Weather, method=method).invoke("Hello"), Weather)
    behind = langchain_openai.ChatOpenAI(**about, use_responses_api=True)
    first = behind.invoke("Hello")
    assert first.text == hello
    again = behind.invoke("Who are you?", previous_response_id=first.response_metadata["id"])
    assert again.text and again.usage_metadata["input_tokens"] < 20


@pytest.mark.slow
def test_llm(address, hello, tmp_path):
    if importlib.util.find_spec("llm") is None:
        pytest.skip("llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: rwkv\n  model_name: small\n  api_base: {address}/v1\n  api_key_name: rwkv\n"
    )
    env = {"LLM_USER_PATH": str(tmp_path)}
    program = (sys.executable, "-m", "llm")
    done(*program, "keys", "set", "rwkv", "--value", "any", **env)
    for more in ((), ("--no-stream",)):
        assert done(*program, "-m", "rwkv", "Hello", "-o", "temperature", "0", *more, **env).strip() == hello
    assert done(*program, "-c", "Who are you?", **env).strip()

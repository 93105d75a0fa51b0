"""The lm-evaluation-harness runs its tasks on this engine. Importing this module registers the model there:

    rwkv-lm-eval --model rwkv_engine --model_args path=model.safetensors,weights=int8 --tasks lambada_openai

From Python it is `lm_eval.simple_evaluate(model=HarnessModel("model.safetensors"), tasks=[...])`. Needs the
extra `lm-eval`.
"""

from typing import Any

from rwkv_engine.evaluation.asking import written
from rwkv_engine.evaluation.likelihood import likelihoods, pair, rolling
from rwkv_engine.loading import load
from rwkv_engine.system.extras import missing

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise missing("lm_eval", "lm-eval", "lm_eval") from None


@register_model("rwkv_engine")
class HarnessModel(LM):
    """A model as the harness asks it. path, weights, threads: as for `load`; what else the harness hands over
    is not needed.
    """

    def __init__(
        self, path: str | None = None, weights: str | None = None, threads: int | None = None, **unused: Any
    ) -> None:
        super().__init__()
        self.model = load(path, weights, None if threads is None else int(threads))

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is the greedy continuation) of each (context, continuation); equal
        contexts are read once.
        """
        found = likelihoods(self.model, [pair(self.model, *request.args) for request in requests])
        return [(-one.nats, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """The log-likelihood of each whole text, behind the token that ends a document."""
        return [-rolling(self.model, request.args[0]) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The likeliest text behind each prompt, up to one of its stop strings."""
        settings = [request.args[1] for request in requests]
        stops = [one.get("until") or [] for one in settings]
        stops = [[stop] if isinstance(stop, str) else [text for text in stop if text] for stop in stops]
        lengths = [int(one.get("max_gen_toks") or 256) for one in settings]
        return written(self.model, [request.args[0] for request in requests], stops, lengths)


def main() -> None:
    """The harness's own command line, which then knows this model."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()

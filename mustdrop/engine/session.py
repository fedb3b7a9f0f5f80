"""One dropper at work on one model: its hooks, prefill told from decoding, the outcome checked."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn
from transformers import DynamicCache

from mustdrop.engine import refuse
from mustdrop.engine.arrival import arrange, entering
from mustdrop.engine.cache import DecodePass
from mustdrop.engine.encoder import EncoderStage
from mustdrop.engine.known import Known
from mustdrop.engine.layout import Masks, Prompt
from mustdrop.engine.prefill import PrefillPass
from mustdrop.engine.run import DropRun, Stages
from mustdrop.engine.tap import attention_tap
from mustdrop.functional import stable_seed
from mustdrop.models import ModelAdapter, Part

_ATTACHED: WeakSet[nn.Module] = WeakSet()


class Session:
    """The hooks of one attached dropper and the state between them."""

    def __init__(self, adapter: ModelAdapter, stages: Stages, known: Known = ()) -> None:
        self.adapter, self.stages, self.run = adapter, stages, DropRun(stages)
        self.ids: Tensor | None = None
        self.pixels: Tensor | None = None
        self.prefill: PrefillPass | None = None
        self.decode: DecodePass | None = None
        self.encoder: EncoderStage | None = None
        if stages.vision is not None or stages.key_tokens is not None:
            self.encoder = EncoderStage(
                adapter=adapter, vision=stages.vision, key_tokens=stages.key_tokens,
                owners=self._owners, keys=self._image_key, known=known, finite=self.run.finite,
            )  # fmt: skip

    @contextmanager
    def attach(self) -> Iterator[DropRun]:
        """Hooks in place; the model as found on exit, whatever happened."""
        model, adapter, stages = self.adapter.model, self.adapter, self.stages
        if model in _ATTACHED:
            raise ValueError("a dropper is already attached to this model; leave its context first")
        with ExitStack() as stack:
            _ATTACHED.add(model)
            stack.callback(_ATTACHED.discard, model)

            def hook(module: nn.Module, function: Callable) -> None:
                handle = module.register_forward_pre_hook(function, with_kwargs=True)
                stack.callback(handle.remove)

            stack.enter_context(self.run.finite.attach(adapter))
            hook(model, self._on_model)
            hook(adapter.base, self._on_base)
            hook(adapter.language_model, self._on_text)
            for index, layer in enumerate(adapter.layers):
                hook(layer, self._on_layer(index))
            after = adapter.language_model.register_forward_hook(self._after_text)
            stack.callback(after.remove)
            layers = stages.prefill.layers if stages.prefill is not None else ()
            stack.enter_context(
                attention_tap(
                    {adapter.layers[at].self_attn: self._probe for at in layers if at >= 0}
                )
            )
            if self.encoder is not None:
                stack.enter_context(self.encoder.attach())
            stack.enter_context(self._guarded_generate())
            yield self.run

    @contextmanager
    def _guarded_generate(self) -> Iterator[None]:
        """Check ``model.generate``'s options before work starts, and learn its inputs.

        Modifications: ``generate`` becomes an attribute of the instance; the class is left alone.
        """
        model = self.adapter.model
        original = model.generate
        own = model.__dict__.get("generate")

        @wraps(original)
        def generate(*args, **kwargs):
            named = inspect.signature(original).bind_partial(*args).arguments
            options = {**named, **kwargs}
            refuse.generate_options(model, options)
            refuse.forward_options(options, self.encoder is not None)
            self._remember(options.get("input_ids", options.get("inputs")), options)
            return self.run.finite.explained(original)(*args, **kwargs)

        model.generate = generate
        try:
            yield
        finally:
            del model.__dict__["generate"]
            if own is not None:
                model.generate = own

    def _remember(self, ids: Tensor | None, options: Mapping[str, Any]) -> None:
        self.ids, self.pixels = ids, options.get("pixel_values")
        self.run.finite.forget()
        if self.encoder is not None:
            self.encoder.forget()

    def _on_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        options = kwargs
        if args:
            options = inspect.signature(module.forward).bind_partial(*args).arguments | kwargs
        refuse.forward_options(options, self.encoder is not None)
        if options.get("pixel_values") is not None:
            self._remember(options.get("input_ids"), options)

    def _on_base(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.ids = kwargs.get("input_ids", args[0] if args else None)

    def _on_text(self, module: Part, args: tuple, kwargs: dict) -> tuple | None:
        cache, inputs = kwargs.get("past_key_values"), kwargs["inputs_embeds"]
        if cache is not None and cache.get_seq_length() > 0:
            return self._continue(args, kwargs)
        if cache is None and kwargs.get("use_cache", module.config.use_cache) is not False:
            cache = DynamicCache(config=module.config)
        refuse.unfit_prefill(cache, kwargs.get("attention_mask"), self.ids)
        assert self.ids is not None and cache is not None
        prompts, pads = arrange(
            self.adapter, self.ids, kwargs.get("attention_mask"), kwargs.get("position_ids")
        )
        encoder, images = self.encoder, []
        enter = None
        if encoder is not None:
            images = encoder.encoded
            enter = entering(self.adapter, prompts, images, encoder.tags)
            encoder.forget()
            for prompt in prompts:
                prompt.ledger.inside = encoder.inside
        attention = self.adapter.layers[0].self_attn
        masks = Masks(refuse.is_eager(attention), refuse.is_flash(attention))
        stages = self.stages
        self.prefill = PrefillPass(
            adapter=self.adapter, prompts=prompts, inputs=inputs, pads=pads,
            keys=self._prompt_keys(prompts, pads), log_scores=stages.log_scores,
            strategy=stages.prefill, entering=enter, masks=masks,
            compact=stages.positions == "compact", finite=self.run.finite,
            compact_vision=stages.vision_positions == "compact",
        )  # fmt: skip
        self.run.finite.begin([prompt.images for prompt in prompts], inputs, pads)
        self.decode = None
        self.run.ledgers = [prompt.ledger for prompt in prompts]
        self.run.images, self.run.mixed = images, self.prefill.mixed
        self.cache = cache
        return args, {**kwargs, "past_key_values": cache}

    def _continue(self, args: tuple, kwargs: dict) -> tuple | None:
        """A decoding step."""
        new = kwargs["inputs_embeds"].shape[1]
        decode = self.decode
        if decode is None or kwargs["past_key_values"] is not decode.cache:
            raise ValueError(
                "this cache was not filled by the last prefill under this dropper; start with the "
                "whole prompt"
            )
        if new != 1:
            raise ValueError(
                f"{new} tokens after the prefill: chunked prefill, second turns on a compacted "
                "cache and speculative decoding are not supported; decode one token at a time"
            )
        decode.step()
        if kwargs.get("position_ids") is None:
            kwargs = {**kwargs, "position_ids": decode.next_positions()}
        return args, kwargs

    def _on_layer(self, index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
            if self.prefill is not None:
                return self.prefill.before(index, args, kwargs)
            return self.decode.before(index, args, kwargs) if self.decode is not None else None

        return hook

    def _probe(self, query: Tensor, key: Tensor, scaling: float) -> None:
        if self.prefill is not None:
            self.prefill.probe(query, key, scaling)

    def _after_text(self, module: nn.Module, args: tuple, output: Any) -> None:
        done, self.prefill = self.prefill, None
        if done is None:
            return
        self.decode = DecodePass(
            self.adapter, self.cache, done.masks, done.layer_pads, done.layer_lengths,
            done.layer_shifts, done.dropped, self.stages.decode_positions,
            [prompt.ledger.seq_len for prompt in done.prompts],
        )  # fmt: skip
        self._check(done)
        if self.stages.decode is not None:
            self.decode.compact(self.stages.decode, done.prompts, done.keys)
        found = [layer.get_seq_length() for layer in self.decode.layers]
        if found != self.decode.lengths:
            raise RuntimeError(
                f"the KV cache holds {found} tokens per layer, not {self.decode.lengths}"
            )

    def _check(self, done: PrefillPass) -> None:
        """Every layer was recorded, and every configured stage was called."""
        depth = self.adapter.facts.depth
        if len(done.layer_pads) != depth:
            raise RuntimeError(f"{len(done.layer_pads)} of {depth} layers ran under the hooks")
        strategy = self.stages.prefill
        if strategy is not None and done.called != set(strategy.layers):
            raise RuntimeError(
                f"{type(strategy).__name__} was called after layers {sorted(done.called)}, "
                f"not {sorted(set(strategy.layers))}"
            )

    def _owners(self, images: int) -> list[int]:
        """The prompt of each image of an encoder call."""
        if self.ids is None:
            raise ValueError(
                "images are encoded before their prompt is known; call generate or forward"
            )
        slots = self.adapter.vision_mask(self.ids).sum(1).tolist()
        owner = [
            prompt
            for prompt, count in enumerate(self.adapter.images_per_prompt(slots))
            for _ in range(count)
        ]
        if len(owner) != images:
            raise ValueError(f"{images} images for {len(owner)} image places in the prompts")
        return owner

    def _image_key(self, image: int) -> int:
        if self.pixels is None:
            raise ValueError("random draws are keyed by the image, but no pixel_values were seen")
        pixels = self.pixels.reshape(-1, *self.pixels.shape[-3:])[image]
        return stable_seed(pixels.float().cpu().numpy().tobytes())

    def _prompt_keys(self, prompts: list[Prompt], pads: list[int]) -> Callable[[int], int]:
        """Key of a prompt's text and images, by its number; neighbours and padding do not enter."""
        ids = self.ids
        assert ids is not None

        @cache  # it reads the pixels, and every layer may ask for it
        def key(number: int) -> int:
            first = sum(prompt.images for prompt in prompts[:number])
            images = [self._image_key(first + image) for image in range(prompts[number].images)]
            return stable_seed(ids[number, pads[number] :].tolist(), images)

        return key

"""Session of a dropper on a model: adds hooks, separates prefill from decoding, checks results."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mustdrop.engine import exclusive, refuse
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.cache import DecodePass
from mustdrop.engine.draws import prompt_keys
from mustdrop.engine.encoder import EncoderStage
from mustdrop.engine.entering import entering
from mustdrop.engine.layout import Masks
from mustdrop.engine.prefill import PrefillPass
from mustdrop.engine.prompts import Arrival, ArrivedImage, arrange, rotary_positions
from mustdrop.engine.run import DropRun
from mustdrop.engine.tap import attention_tap
from mustdrop.engine.transformers_api import cache_in, cache_name, with_cache
from mustdrop.models import ModelAdapter, Part
from mustdrop.stages import Stages


class Session:
    """Hooks of one attached dropper, and the state that they share."""

    def __init__(self, adapter: ModelAdapter, stages: Stages, annotations: Annotations) -> None:
        self.adapter, self.stages, self.run = adapter, stages, DropRun(stages)
        self.call = exclusive.OneCall()
        self.cache_name = cache_name(adapter.language_model)
        self.ids: Tensor | None = None
        self.inputs: Mapping[str, Any] = {}
        self.arrival: Arrival | None = None
        self.prefill: PrefillPass | None = None
        self.decode: DecodePass | None = None
        self.encoder: EncoderStage | None = None
        if stages.vision is not None or stages.key_tokens is not None:
            self.encoder = EncoderStage(
                adapter=adapter, vision=stages.vision, key_tokens=stages.key_tokens,
                received=stages.cls_attention == "received", arrived=self._arrived,
                annotations=annotations, finite=self.run.finite,
            )  # fmt: skip

    @contextmanager
    def attach(self) -> Iterator[DropRun]:
        """Add the hooks; restore the model on exit, also after an error."""
        model, adapter, stages = self.adapter.model, self.adapter, self.stages
        with ExitStack() as stack:
            stack.enter_context(exclusive.attached(model))

            def before(module: nn.Module, function: Callable) -> None:
                hook = exclusive.Only(module, function)
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)

            def after(module: nn.Module, function: Callable, always: bool = False) -> None:
                hook = exclusive.Only(module, function)
                stack.callback(module.register_forward_hook(hook, always_call=always).remove)

            stack.enter_context(self.run.finite.attach(adapter))
            before(model, self._on_model)
            after(model, self._after_model, always=True)
            before(adapter.base, self._on_base)
            before(adapter.language_model, self._on_text)
            for index, layer in enumerate(adapter.layers):
                before(layer, self._on_layer(index))
            after(adapter.language_model, self._after_text)
            layers = stages.prefill.layers if stages.prefill is not None else ()
            probed = {adapter.layers[i].self_attn: self._probe for i in layers if i >= 0}
            stack.enter_context(attention_tap(probed))
            if self.encoder is not None:
                stack.enter_context(self.encoder.attach())
            generate = exclusive.serialised(
                self.run.finite.explained(model.generate),
                self.call, self._before_generate, self._forget,
            )  # fmt: skip
            stack.enter_context(exclusive.instance_method(model, "generate", generate))
            copied = exclusive.clean_copy(model, ["generate", "__deepcopy__"])
            stack.enter_context(exclusive.instance_method(model, "__deepcopy__", copied))
            yield self.run

    def _before_generate(self, *args: Any, **kwargs: Any) -> None:
        """Check the options and prompts of ``model.generate``, which may encode images first."""
        model = self.adapter.model
        options = kwargs
        if args:
            options = inspect.signature(type(model).generate).bind_partial(model, *args).arguments
            options = {**options, **kwargs}
        refuse.generate_options(model, options)
        refuse.forward_options(options, self.stages, model.config)
        self._read(options.get("input_ids", options.get("inputs")), options)

    def _forget(self) -> None:
        """Discard a batch that failed before it reached the language model."""
        self.arrival = self.prefill = None
        self.run.finite.forget()
        if self.encoder is not None:
            self.encoder.forget()

    def _read(self, ids: Tensor | None, options: Mapping[str, Any]) -> None:
        """Read a new batch; a faulty one is refused before its images are encoded."""
        self._forget()
        self.decode, self.run.ledgers, self.run.images = None, [], []
        refuse.unfit_inputs(ids, options, self.adapter.facts.coordinates)
        assert ids is not None
        self.ids, self.inputs = ids, options
        self.arrival = Arrival.of(self.adapter, ids, options)
        if self.stages.may_drop:
            self.arrival.require_text_at_the_end()

    def _on_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.call.enter()
        options = kwargs
        if args:
            options = inspect.signature(module.forward).bind_partial(*args).arguments | kwargs
        refuse.forward_options(options, self.stages, self.adapter.model.config)
        if not _decoding(options) and self.arrival is None:
            self._read(options.get("input_ids"), options)

    def _after_model(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.call.held_by_this_thread:  # not if it was refused because of another thread
            self._forget()
            self.call.leave()

    def _on_base(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        if _decoding(kwargs):
            return args, self._placed(kwargs)
        ids, mask = kwargs.get("input_ids", args[0] if args else None), kwargs.get("attention_mask")
        if self.arrival is None:
            self._read(ids, kwargs)
        elif ids is not None and not self.arrival.masked and mask is not None:
            # ``generate`` made a mask from padding
            self.arrival = Arrival.of(self.adapter, ids, {**self.inputs, "attention_mask": mask})
        cache, text = cache_in(kwargs), self.adapter.language_model
        use_cache = kwargs.get("use_cache")
        if cache is None and (text.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=text.config)
        refuse.checkpointing(self.adapter.model)
        self.cache = refuse.unfit_cache(cache)

    def _on_text(self, module: Part, args: tuple, kwargs: dict) -> tuple | None:
        if _decoding(kwargs):
            return self._continue(args, kwargs)
        if self.arrival is None:
            raise ValueError(
                "the language model was called by itself while a dropper is attached; call the "
                "whole model, so that the prompt's vision tokens are known"
            )
        assert self.ids is not None
        inputs, pads = kwargs["inputs_embeds"], self.arrival.pads
        positions = rotary_positions(self.arrival, kwargs.get("position_ids"))
        prompts = arrange(self.arrival, positions)
        self.last_positions = positions[..., -1]
        encoder, images, enter = self.encoder, [], None
        if encoder is not None:
            images = encoder.encoded
            inputs, enter = entering(encoder, prompts, inputs, pads)
            encoder.forget()
            for prompt in prompts:
                prompt.ledger.merged_inside_blocks = encoder.inside
        attention = self.adapter.layers[0].self_attn
        masks = Masks(refuse.is_eager(attention), refuse.is_flash(attention))
        self.prefill = PrefillPass(
            adapter=self.adapter, stages=self.stages, prompts=prompts, inputs=inputs, pads=pads,
            entering=enter, masks=masks, finite=self.run.finite,
            keys=prompt_keys(prompts, pads, self.ids),
        )  # fmt: skip
        self.run.finite.begin(self.arrival.owners, inputs, pads)
        self.arrival = None
        self.run.ledgers = [prompt.ledger for prompt in prompts]
        self.run.images, self.run.mixed = images, self.prefill.mixed
        return args, with_cache({**kwargs, "inputs_embeds": inputs}, self.cache_name, self.cache)

    def _placed(self, kwargs: dict) -> dict:
        """Arguments of a decoding step, with a position; the model would count a cut cache."""
        decode = self.decode
        known = decode is not None and cache_in(kwargs) is decode.cache
        if not known or kwargs.get("position_ids") is not None:
            return kwargs
        assert decode is not None
        return {**kwargs, "position_ids": decode.next_positions()}

    def _continue(self, args: tuple, kwargs: dict) -> tuple | None:
        """Check and prepare a decoding step."""
        new = kwargs["inputs_embeds"].shape[1]
        decode = self.decode
        if decode is None or cache_in(kwargs) is not decode.cache:
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
            torch.stack([prompt.first for prompt in done.prompts]), self.last_positions,
        )  # fmt: skip
        self._check(done)
        done.checks.require()
        if self.stages.decode is not None:
            self.decode.compact(self.stages.decode, done.prompts, done.keys)
        lengths = [layer.get_seq_length() for layer in self.decode.layers]
        if lengths != self.decode.lengths:
            raise RuntimeError(
                f"the KV cache holds {lengths} tokens per layer, not {self.decode.lengths}"
            )

    def _check(self, done: PrefillPass) -> None:
        """Check that every layer was recorded, and that the strategy was called at its layers."""
        depth = self.adapter.facts.depth
        if len(done.layer_pads) != depth:
            raise RuntimeError(f"{len(done.layer_pads)} of {depth} layers ran under the hooks")
        strategy = self.stages.prefill
        if strategy is not None and done.called != set(strategy.layers):
            raise RuntimeError(
                f"{type(strategy).__name__} was called after layers {sorted(done.called)}, "
                f"not {sorted(set(strategy.layers))}"
            )

    def _arrived(self) -> list[ArrivedImage]:
        """Images of the batch in the order in which the encoders get them."""
        if self.arrival is None:
            raise ValueError(
                "images are encoded before their prompt is known; call generate or forward"
            )
        return self.arrival.images


def _decoding(options: Mapping[str, Any]) -> bool:
    """Whether a call continues with a filled cache."""
    cache = cache_in(options)
    return cache is not None and cache.get_seq_length() > 0

"""Session of a dropper on a model: adds hooks, separates prefill from decoding, checks results."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mustdrop.engine import exclusive, generation, refuse, turns
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.cache import DecodePass
from mustdrop.engine.draws import prompt_keys
from mustdrop.engine.encoder import EncoderStage
from mustdrop.engine.entering import entering
from mustdrop.engine.layout import Masks
from mustdrop.engine.prefill import PrefillPass
from mustdrop.engine.prompts import Arrival, ArrivedImage, arrange, rotary_positions
from mustdrop.engine.run import DropRun
from mustdrop.engine.sequences import first_rows, repeated
from mustdrop.engine.tap import attention_tap
from mustdrop.engine.transformers_api import (
    cache_in,
    cache_name,
    is_filled,
    named_arguments,
    plain_cache,
    with_cache,
    without_cache,
)
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
        self.sequences = generation.Sequences()
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
            prepare = turns.whole_turns(model.prepare_inputs_for_generation, lambda: self.decode)
            methods = {name: generation.refuse_batching(name) for name in generation.BATCHING}
            methods |= {"generate": generate, "prepare_inputs_for_generation": prepare}
            methods["__deepcopy__"] = exclusive.clean_copy(model, [*methods, "__deepcopy__"])
            for name, method in methods.items():
                stack.enter_context(exclusive.instance_method(model, name, method))
            yield self.run

    def _before_generate(self, *args: Any, **kwargs: Any) -> None:
        """Check the options and prompts of ``model.generate``, which may encode images first."""
        model = self.adapter.model
        options = named_arguments(type(model).generate, (model, *args), kwargs)
        generation.unfit_options(model, options)
        refuse.forward_options(options, self.stages, model.config)
        sequences = generation.sequences(model, options)
        if is_filled(cache_in(options)):
            turns.unfit_turn(self.adapter, self.decode, options, sequences.per_prompt)
            return
        self._read(options.get("input_ids", options.get("inputs")), options)
        self.sequences = sequences

    def _forget(self) -> None:
        """Discard a batch that failed before it reached the language model."""
        self.arrival = self.prefill = None
        self.run.finite.forget()
        if self.encoder is not None:
            self.encoder.forget()

    def _read(self, ids: Tensor | None, options: Mapping[str, Any]) -> None:
        """Read a new batch; a faulty one is refused before its images are encoded."""
        self._forget()
        self.decode, self.run.ledgers, self.run.images, self.run.later = None, [], [], 0
        self.sequences = generation.Sequences()
        refuse.unfit_inputs(ids, options, self.adapter.facts.coordinates)
        assert ids is not None
        self.ids, self.inputs = ids, options
        self.arrival = Arrival.of(self.adapter, ids, options)
        refuse.beyond_window(self.adapter.window, ids.shape[1] - min(self.arrival.pads))
        if self.stages.may_drop:
            self.arrival.require_text_at_the_end()
        if self.stages.prefill is not None and self.stages.prefill.videos_only:
            self.arrival.require_videos(type(self.stages.prefill).__name__)

    def _on_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.call.enter()
        options = named_arguments(module.forward, args, kwargs)
        refuse.forward_options(options, self.stages, self.adapter.model.config)
        if not is_filled(cache_in(options)) and self.arrival is None:
            self._read(options.get("input_ids"), options)

    def _after_model(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.call.held_by_this_thread:  # not if it was refused because of another thread
            self._forget()
            self.call.leave()

    def _on_base(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        kwargs = named_arguments(module.forward, args, kwargs)
        if is_filled(cache_in(kwargs)):
            return (), turns.placed(self.adapter, self.decode, kwargs)
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        if self.arrival is None:
            self._read(ids, kwargs)
        elif ids is not None and not self.arrival.masked and mask is not None:
            # ``generate`` made a mask from padding
            count = self.sequences.per_prompt
            masked = {**self.inputs, "attention_mask": mask[::count]}
            self.arrival = Arrival.of(self.adapter, ids[::count], masked)
        cache, text = cache_in(kwargs), self.adapter.language_model
        use_cache = kwargs.get("use_cache")
        wanted = text.config.use_cache if use_cache is None else use_cache
        self.keep_cache = wanted or cache is not None
        refuse.checkpointing(self.adapter.model)
        # Without a cache the prefill is the same: the cache is cut, recorded and then discarded.
        cache = DynamicCache(config=text.config) if cache is None else cache
        self.cache = refuse.unfit_cache(
            cache if self.adapter.window is None else plain_cache(cache)
        )

    def _on_text(self, module: Part, args: tuple, kwargs: dict) -> tuple | None:
        if is_filled(cache_in(kwargs)):
            return self._continue(args, kwargs)
        if self.arrival is None:
            raise ValueError(
                "the language model was called by itself while a dropper is attached; call the "
                "whole model, so that the prompt's vision tokens are known"
            )
        kwargs, added = self.adapter.take_added(kwargs)
        count = self.sequences.per_prompt
        if count > 1:
            kwargs, added = first_rows(kwargs, count), [states[::count] for states in added]
        inputs, pads = kwargs["inputs_embeds"], self.arrival.pads
        positions = rotary_positions(self.arrival, kwargs.get("position_ids"))
        prompts = arrange(self.arrival, positions)
        self.last_positions = positions[..., -1]
        self.largest = positions[-3:].amax((0, -1)) if positions.dim() == 3 else None
        encoder, images, enter = self.encoder, [], None
        if encoder is not None:
            inputs, enter = entering(encoder, prompts, inputs, pads, added)
            images = encoder.encoded
            encoder.forget()
            for prompt in prompts:
                prompt.ledger.merged_inside_blocks = encoder.inside
        attention = self.adapter.layers[0].self_attn
        masks = Masks(refuse.is_eager(attention), refuse.is_flash(attention))
        self.prefill = PrefillPass(
            adapter=self.adapter, stages=self.stages, prompts=prompts, inputs=inputs, pads=pads,
            entering=enter, added=added, masks=masks, finite=self.run.finite,
            keys=prompt_keys(prompts, pads, self.arrival.ids),
        )  # fmt: skip
        self.run.finite.begin(self.arrival.owners, inputs, pads, count)
        self.arrival = None
        self.run.ledgers = [prompt.ledger for prompt in prompts]
        self.run.images, self.run.mixed = images, self.prefill.mixed
        return args, with_cache({**kwargs, "inputs_embeds": inputs}, self.cache_name, self.cache)

    def _continue(self, args: tuple, kwargs: dict) -> tuple | None:
        """Check and prepare a call after the prefill."""
        decode = turns.known(self.decode, cache_in(kwargs))
        self.run.later = decode.later + kwargs["inputs_embeds"].shape[1]
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

    def _after_text(self, module: nn.Module, args: tuple, output: Any) -> Any:
        done, self.prefill = self.prefill, None
        if done is None:
            return None
        assert self.ids is not None
        self.decode = decode = DecodePass(
            self.adapter, self.cache, done.masks, self.ids, done.input_pads, done.layer_pads,
            done.layer_lengths, done.layer_shifts, done.dropped, self.stages.decode_positions,
            torch.stack([prompt.first for prompt in done.prompts]), self.last_positions,
            self.largest,
            self.sequences.beams,
        )  # fmt: skip
        done.require_complete()
        if self.stages.decode is not None:
            decode.compact(self.stages.decode, done.prompts, done.keys)
        decode.require_lengths()
        if not self.keep_cache:
            self.decode = None
            return without_cache(output)
        if self.sequences.per_prompt > 1:
            decode.repeat(self.sequences.per_prompt)
            return repeated(output, self.sequences.per_prompt)
        return None

    def _arrived(self) -> list[ArrivedImage]:
        if self.arrival is None:
            raise ValueError(
                "images are encoded before their prompt is known; call generate or forward"
            )
        return self.arrival.images

"""FineTuneModule: the LightningModule of a backbone with one adapter strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftConfig, PeftModel, PeftType, PromptLearningConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from smoa_lightning.adapters.adalora import RankAllocation
from smoa_lightning.adapters.budget import Budget, BudgetFit, fit_budget
from smoa_lightning.adapters.budget_tolerance import check_tolerance
from smoa_lightning.adapters.combine import attach_strategy, check_pair, weights_of
from smoa_lightning.adapters.parameters import adapter_state_names
from smoa_lightning.adapters.unsupported import check_supported
from smoa_lightning.adapters.virtual_tokens import check_virtual_tokens, limits_with
from smoa_lightning.backbones.attention import follow_kernel, kernel_of
from smoa_lightning.backbones.backbone import (
    BackboneConfig,
    Location,
    limits,
    load_model,
    load_skeleton,
    locate,
    provenance,
)
from smoa_lightning.backbones.class_texts import texts_of
from smoa_lightning.backbones.fused import SETTING as SPLIT
from smoa_lightning.backbones.head_start import prepare_head
from smoa_lightning.backbones.limits import Limits
from smoa_lightning.backbones.processor import Processor, load_processor
from smoa_lightning.backbones.training_mode import training_mode
from smoa_lightning.common.errors import NotFinite, UserError
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.objectives import DistillationConfig, objective_of
from smoa_lightning.training.checkpoint import check_tensors
from smoa_lightning.training.first_step import warn_in_first_step
from smoa_lightning.training.loss_scale import scaler_decides
from smoa_lightning.training.optimizer import DEFAULT_OPTIMIZER, scheduled_optimizer, with_groups
from smoa_lightning.training.packing_check import check_packing
from smoa_lightning.training.random_states import random_state_of, random_states
from smoa_lightning.training.reply_trial import try_replies
from smoa_lightning.training.schedule import Decay
from smoa_lightning.training.scoring_module import Batch
from smoa_lightning.training.sharding import average_gradients, shard, whole_norm
from smoa_lightning.training.taught_module import TaughtModule


class FineTuneModule(TaughtModule):
    """A backbone with the head of the objective, an adapter strategy, and the optimizer.

    The loss of an optimizer step is the mean of the objective's loss over all its targets, such as the cross-entropy of
    all target tokens, over all micro-batches and processes. Accumulation and DDP therefore change only the speed.

    Set ``objective`` before the model or its processor is read, unless the run trains a language model.
    """

    def __init__(
        self,
        backbone: BackboneConfig | None = None,
        adapter: PeftConfig | None = None,
        frozen: bool = False,
        optimizer: OptimizerCallable = DEFAULT_OPTIMIZER,
        warmup: float = 0.06,
        decay: Decay = "linear",
        adapter_seed: int | None = None,
        budget: str | int | float | dict[str, str] | None = None,
        budget_tolerance: float | None = None,
        head_lr: float | None = None,
        head_init: str | list[str] | None = None,
        no_weight_decay: list[str] | None = None,
        distillation: DistillationConfig | None = None,
        prompt: PromptLearningConfig | None = None,
    ) -> None:
        """Describe the model; ``configure_model`` loads it.

        Args:
            backbone: The language model to adapt.
            adapter: The strategy: any ``peft.PeftConfig``, by class path. ``null`` is full fine-tuning.
            frozen: Train nothing of the backbone. Needs ``adapter: null``. A language model is only evaluated; a new
                head of the task is trained alone.
            optimizer: The optimizer of the trainable parameters.
            warmup: Linear warm-up of the learning rate: a number of steps, or below 1 a share of all steps.
            decay: Learning rate after the warm-up: ``linear`` to zero, ``cosine`` to zero, or ``constant``.
            adapter_seed: Seed of the adapter's initial values; ``null`` follows ``seed_everything`` (0 in Python).
            budget: Number of trainable parameters, which sets the strategy's rank or block size: ``300k``, or
                ``like: FILE`` for the number of the strategy in a YAML file. ``null`` changes no size.
            budget_tolerance: Largest share by which the size may miss the budget, such as 0.01; ``null`` takes the
                nearest size between half and twice the budget, and reports the difference.
            head_lr: Learning rate of a new head, which is trained in full with any strategy; ``null`` takes that of
                the optimizer.
            head_init: Texts from which the head of a CLIP model starts, with ``{}`` for the name of a class, such as
                ``a photo of a {}.``: the untrained model is then zero-shot CLIP. ``null`` starts from random values.
            no_weight_decay: Parts of names of parameters without weight decay, such as ``[bias, LayerNorm]``; ``null``
                gives all trainable parameters that of the optimizer.
            distillation: The teacher of the run, and its share of the loss; ``null`` trains on the targets alone.
            prompt: A prompt method that is trained together with the adapter, by class path; ``null`` trains the
                adapter alone. A prompt method without an adapter of weights is set as ``model.adapter``.
        """
        super().__init__(distillation)
        if frozen and adapter is not None:
            raise UserError("model.frozen is true but model.adapter is set; a frozen run needs 'model.adapter: null'")
        check_pair(adapter, prompt, budget is not None)
        for key, config in (("model.adapter", adapter), ("model.prompt", prompt)):
            if config is not None:
                check_supported(config)
                check_virtual_tokens(config, key)
        if backbone is not None and backbone.split_fused and adapter is None:
            raise UserError(
                f"{SPLIT} is true, but model.adapter is null: only adapters need the parts; set it to false"
            )
        numbers = {"warmup": warmup, "adapter_seed": adapter_seed, "budget_tolerance": budget_tolerance}
        numbers["head_lr"] = head_lr
        for name, number in numbers.items():
            check_value(f"model.{name}", number)
        self.backbone_config = backbone or BackboneConfig()
        self.adapter_config, self.frozen_backbone, self.optimizer_factory = adapter, frozen, optimizer
        self.prompt_config = prompt
        self.head_lr, self.no_weight_decay = head_lr, no_weight_decay
        self.head_texts = texts_of(head_init)
        self.warmup, self.decay, self.adapter_seed = warmup, decay, adapter_seed or 0
        self.budget = None if budget is None else Budget.parse(budget)
        self.budget_tolerance = budget_tolerance
        self.budget_fit: BudgetFit | None = None
        self.scores_report = False  # after training
        self.run_config: dict[str, Any] = {}  # saved in checkpoints, for evaluations
        self.model: PreTrainedModel | PeftModel | None = None
        self.allocation: RankAllocation | None = None  # AdaLoRA's penalty and rank changes
        self.step_targets = 0  # targets of the current optimizer step
        self.seen_tokens = 0  # without padding; for the cost monitor
        self._step_loss: Tensor | None = None
        self._step_terms: dict[str, Tensor] = {}  # parts of the loss that are logged

    @property
    def frozen(self) -> bool:
        """Whether nothing is trained, not even a head."""
        return self.frozen_backbone and not self.objective.head.is_new

    @cached_property
    def location(self) -> Location:
        """Where the backbone is read from, with the head of the objective."""
        return locate(self.backbone_config, self.objective.head.with_texts(self.head_texts))

    @cached_property
    def backbone_facts(self) -> dict[str, Any]:
        """Source and checksums of the backbone, when they were first needed."""
        return provenance(self.location)

    @cached_property
    def processor(self) -> Processor:
        """The backbone's tokenizer, or for images its image processor."""
        return load_processor(self.location)

    @property
    def pad_id(self) -> int | None:
        """The pad token; images have none."""
        return getattr(self.processor, "pad_token_id", None)

    @cached_property
    def limits(self) -> Limits:
        """What the model can be fed with its adapter: every text obeys these limits."""
        own = limits(self.location)
        if self.prompt_config is not None:
            return limits_with(self.prompt_config, own, "model.prompt")
        return limits_with(self.adapter_config, own)

    @property
    def network(self) -> nn.Module:
        """The loaded backbone with its adapter."""
        if self.model is None:
            raise RuntimeError("the backbone is not loaded yet: Lightning calls configure_model first")
        return self.model

    def resolve_budget(self) -> BudgetFit | None:
        """Set the strategy's size to the nearest size to the budget; ``None`` without a budget.

        Raises:
            UserError: The size misses the budget by more than ``budget_tolerance``.
        """
        if self.budget is not None and self.budget_fit is None:
            skeleton = load_skeleton(self.backbone_config, self.location)
            fit = fit_budget(skeleton, self.adapter_config, self.budget, self.frozen)
            check_tolerance(fit, self.budget_tolerance)
            self.budget_fit = fit
            self.adapter_config = self.budget_fit.config
        return self.budget_fit

    def setup(self, stage: str) -> None:
        """Refuse data of another objective than that of the model.

        Raises:
            UserError: ``objective`` was not set for these data.
        """
        sets = getattr(self.trainer.datamodule, "sets", None)  # type: ignore[attr-defined]
        wanted = self.objective if sets is None else objective_of(sets)
        if wanted != self.objective:
            raise UserError(
                f"the model is for {self.objective.name}, but the data are for {wanted.name}: set module.objective = "
                "objective_of(data.sets) before anything is loaded"
            )

    def configure_model(self) -> None:
        """Load the backbone, then attach the strategy, each once; Lightning calls this before every run.

        The base model is scored before the strategy is attached, since some initialisations change its weights.
        """
        if self.model is None:
            self.resolve_budget()
            model = load_model(self.backbone_config, self.location)
            self.model = model.requires_grad_(self.adapter_config is None and not self.frozen_backbone)
            if self.objective.head.is_new:
                prepare_head(model, self.location, self.adapter_seed, self.pad_id)
        if self.adapter_config is not None and not self.scoring_base_model and not isinstance(self.model, PeftModel):
            self.model = attach_strategy(self.model, self.adapter_config, self.prompt_config, self.adapter_seed)
            if self.adapter_config.peft_type == PeftType.ADALORA:
                self.allocation = RankAllocation(weights_of(self.model))
        shard(self)

    # ------------------------------------------------------------------------------------------------- training

    def on_fit_start(self) -> None:
        """Switch to training mode: transformers loads models in evaluation mode, and Lightning does not change it.

        Raises:
            UserError: The model cannot take packed rows, or cannot write the replies that are scored; the teacher
                cannot be loaded.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        networks = [self.network, *self.prepare_teacher()]
        for network in networks if getattr(data, "packing", False) else ():
            check_packing(network)
        try_replies(self)
        training_mode(self.network)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss of a micro-batch; the optimizer step divides by its number of targets."""
        loss, targets, terms = self.summed_loss(batch)
        self.step_targets += targets
        for name, term in terms.items():
            self._step_terms[name] = term + self._step_terms.get(name, 0)
        self.seen_tokens += int(batch["num_tokens"] if "num_tokens" in batch else batch["attention_mask"].sum())
        self._step_loss = loss.detach() + (0 if self._step_loss is None else self._step_loss)
        return loss * self.trainer.accumulate_grad_batches  # undoes Lightning's division

    @property
    def within_step(self) -> bool:
        """Whether some, but not all, micro-batches of an optimizer step are done: the same in all processes."""
        return self._step_loss is not None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the number of targets of the whole step, over all processes.

        With 16-mixed, a loss scaler leaves out a step whose gradients are not finite, and lowers its scale.

        Raises:
            NotFinite: Loss or gradients are not finite; the parameters are not changed.
        """
        summed = cast(Tensor, self._step_loss)
        terms, self._step_terms = self._step_terms, {}
        local = torch.stack([summed, summed.new_tensor(self.step_targets), *terms.values()])
        loss, targets, *sums = self.trainer.strategy.reduce(local, reduce_op="sum").tolist()
        self.step_targets, self._step_loss = 0, None
        mean = loss / targets
        self.log_dict({f"train/{name}": value / targets for name, value in zip(terms, sums, strict=True)})
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        average_gradients(self.trainer.strategy, parameters)
        warn_in_first_step(self.network, self.trainer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient.mul_(self.trainer.world_size / targets)  # they are averages over the processes
        if self.allocation is not None:
            self.log("train/mean_rank", self.allocation.mean_rank())
            self.log("train/orthogonality_penalty", self.allocation.add_penalty_gradients())
        norm = whole_norm(gradients)
        if math.isfinite(mean) and not math.isfinite(norm) and scaler_decides(self.trainer, optimizer):
            self.log("train/loss", mean, prog_bar=True)
            return
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise NotFinite(
                f"the training loss is {mean} and its gradient has norm {norm} at step {self.trainer.global_step + 1}: "
                f"lower the learning rate (now {optimizer.param_groups[0]['lr']:.2e}); the last good checkpoint remains"
            )
        self.log("train/gradient_norm", norm)
        self.log("train/loss", mean, prog_bar=True)
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make the step, then the work of the method after it, which needs the gradients."""
        super().optimizer_step(*args, **kwargs)
        if self.allocation is not None:
            self.allocation.after_step(self.trainer.global_step + 1)  # Lightning counts the step after this hook

    def configure_optimizers(self) -> Any:
        """Build the optimizer of the trainable parameters, with warm-up and decay by step."""
        total = int(self.trainer.estimated_stepping_batches)
        if self.allocation is not None:
            self.allocation.start(total)
        factory = with_groups(self.optimizer_factory, self.network, self.head_lr, self.no_weight_decay)
        return scheduled_optimizer(self.network, factory, total, self.warmup, self.decay)

    # ------------------------------------------------------------------------------------------ adapter-only state

    def _own_names(self) -> set[str]:
        if isinstance(self.network, PeftModel):
            return {f"model.{name}" for name in adapter_state_names(self.network)}
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the trained tensors and the adapter's saved buffers, without frozen weights."""
        own = self._own_names()
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in own}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the tensors of :meth:`state_dict`.

        Raises:
            UserError: Tensors are missing, unexpected or of a different shape.
        """
        check_tensors(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save settings, facts of the backbone, and torch's random state for the dropout of a resumed run."""
        checkpoint |= {"config": self.run_config, "backbone": self.backbone_facts, "attention": kernel_of(self.model)}
        if self.allocation is not None:
            checkpoint["allocation"] = self.allocation.state_dict()
        checkpoint["rng"] = random_states(self.trainer.world_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the saved random state until training starts; restore the kernel and AdaLoRA's importances."""
        follow_kernel(self.model, checkpoint.get("attention"))
        self._rng = random_state_of(checkpoint.get("rng"), self.trainer.global_rank)
        if self.allocation is not None and "allocation" in checkpoint:
            self.allocation.load_state_dict(checkpoint["allocation"])

    def on_train_start(self) -> None:
        """Restore the random state of a resumed run; all code that draws numbers before training has run."""
        rng = getattr(self, "_rng", None)
        if rng is not None:
            torch.set_rng_state(rng["cpu"])
            if rng["cuda"]:
                torch.cuda.set_rng_state_all(rng["cuda"])

"""Parameter importance of a search, by PED-ANOVA."""

from __future__ import annotations

import optuna


def importances_of(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the variation of the score; empty if there are too few different scores."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.state is optuna.trial.TrialState.COMPLETE]
    if len(complete) < 4 or len({t.values[0] for t in complete}) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: -trial.values[0],  # the evaluator explains low values of its target
        )
    except (ValueError, RuntimeError):  # no parameter that all trials share
        return {}

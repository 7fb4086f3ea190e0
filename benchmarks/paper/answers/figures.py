"""Pictures of the answers."""

from answers.judging import FAILS, HOLDS

_COLOURS = {HOLDS: "tab:green", FAILS: "tab:red"}
_OTHERWISE = "0.45"


def effects(answer, path):
    """Every effect of an answer with its interval, a line each; coloured by its verdict."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    findings = list(reversed(answer.findings))
    figure, axes = pyplot.subplots(figsize=(9, 1.3 + 0.32 * len(findings)), layout="constrained")
    for place, finding in enumerate(findings):
        colour = _COLOURS.get(finding.verdict.word, _OTHERWISE)
        axes.plot(100 * finding.estimate.difference, place, "o", color=colour, markersize=4)
        if finding.estimate.low is not None:
            axes.plot(
                [100 * finding.estimate.low, 100 * finding.estimate.high], [place, place], color=colour, linewidth=1.5
            )
    axes.axvline(0, color="0.7", linewidth=0.8)
    labels = [f"{finding.what}  {finding.over}\n{finding.where}" for finding in findings]
    axes.set_yticks(range(len(findings)), labels, fontsize=6)
    figure.supxlabel(
        "percentage points, with 95 % intervals; green: holds, red: does not hold, grey: undecided", fontsize=9
    )
    figure.suptitle(f"{answer.number}. {answer.question}", fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

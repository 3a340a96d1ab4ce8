"""Parent and child speak at the same time: `crossed`, `c-fork`, and three generations, `grandchild`."""

from __future__ import annotations

from poolfork.actors import Child, Missed, Parent, Referee
from poolfork.hazards import hazard

_OWN = "every answer is the asker's own, nobody errs or hangs, and the backend ids differ"


@hazard("crossed", passes_when=_OWN)
def crossed(parent: Parent, variant: str) -> None:
    """The child waits for its answer at a locked row; stopped there, it lets the parent ask and read first."""
    speak_at_once(parent)


def speak_at_once(parent: Parent, how: str = "python") -> None:
    """The steps of `crossed`, however the child is forked."""
    parent.has_idle()
    child = parent.fork(child_reads_while_the_parent_reads, how=how)
    with parent.judged():
        child.hears()
        parent.step("the parent checks out")
        parent.do(_checks_out, parent)
        parent.step("the referee locks a row")
        with Referee(parent) as referee:
            referee.locks_row()
            child.told()
            session = child.hears()["asks_in"]
            parent.until_waiting(session, child, referee)
            child.stops()
            referee.lets_go()
            parent.until_answered(session, referee)
        parent.step("the parent asks, the child's answer being first on a shared wire")
        with parent.judged():
            answer = parent.do(parent.repeats, parent.held, "parent")
            if answer != "parent":
                parent.found("wrong-row", f"the parent asked for 'parent' and got {answer!r}")
        child.goes_on()
        answer = child.hears()["answer"]
        if answer != "child":
            parent.found("wrong-row", f"the child asked for 'child' and got {answer!r}")
    if parent.sound:  # else there is nothing left to prove, and much to wait for
        parent.step("the parent checks in, and asks which session it has")
        with parent.judged():
            parent.do(parent.held.close)
            parents = parent.asks_backend()
            child.told()
            if child.hears()["backend"] == parents:
                parent.found("wrong-row", f"parent and child speak in one session, {parents}")
    child.kill()


def _checks_out(parent: Parent) -> None:
    parent.held = parent.engine.connect()
    parent.backend(parent.held)  # from here on it is inside a transaction, so its next words are the question


def child_reads_while_the_parent_reads(child: Child) -> None:
    """Apply the recipe, check out, then ask at the locked row while the parent asks too."""
    child.applies_recipe()
    child.says(backend=child.asks_backend())
    child.hears()
    child.says(answer=child.reads_locked_row("child"))
    child.hears()
    child.says(backend=child.asks_backend())


@hazard("c-fork", passes_when="as crossed, the child being forked from C, past Python's at-fork hooks")
def c_fork(parent: Parent, variant: str) -> None:
    """As crossed, but the fork is C's own, as in uWSGI by default: no hook of Python's runs."""
    speak_at_once(parent, how="c")


@hazard("grandchild", passes_when="three generations have three different sessions, all alive")
def grandchild(parent: Parent, variant: str) -> None:
    """The child uses its pool and forks again; then all three ask once more, youngest first."""
    first = parent.has_idle()[0]
    child = parent.fork(child_forks_again)
    sessions = {}
    with parent.judged():
        sessions = child.hears(patience=6)
        child.leaves()
    parent.step("the parent asks again")
    with parent.judged("parent-lost"):
        sessions["parent"] = parent.asks_backend()
        if parent.recipe.keeps_idle and sessions["parent"] != first:
            parent.found("parent-lost", f"the parent has session {sessions['parent']} instead of {first}")
    if len(sessions) == 3 and len(set(map(str, sessions.values()))) != 3:
        parent.found("wrong-row", f"three generations, these sessions: {sessions}")


def child_forks_again(child: Child) -> None:
    """Use the pool, fork, let the grandchild use it, and use it again."""
    child.applies_recipe()
    own = child.asks_backend()
    if child.recipe.dispose_before_fork:
        child.do(child.engine.dispose)
    young = child.fork(grandchild_uses_the_pool)
    theirs = young.hears(patience=4)["backend"]
    young.leaves()
    again = child.asks_backend()
    if child.recipe.keeps_idle and again != own:
        raise Missed("error", f"the child lost its session {own} to the grandchild")
    child.says(child=again, grandchild=theirs)


def grandchild_uses_the_pool(child: Child) -> None:
    """Apply the recipe a generation later, and ask."""
    child.applies_recipe()
    child.says(backend=child.asks_backend())

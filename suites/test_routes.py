"""How the routes to one trait agree: prompting, QLoRA, steering and PsychAdapter side by side.

Described, and nothing is decided: if emoji came with the trait itself, all routes would lie on one
curve of emoji over trait expression; where one lies above the others at equal expression, the
emoji come with the route.
"""

import pytest

from emotest import TRAITS
from emotest.plan.routes import routes_plan
from emotest.report.figures import scatter
from fixtures.routes import emoji_at
from fixtures.run import needs

EQUAL_EXPRESSION = 0.5
"""Trait expression at which the routes are compared."""

pytestmark = [pytest.mark.high]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(routes_plan,))
def test_the_routes_to_a_trait_are_told(trait, routes, tables, emo_run):
    """Described: trait expression and emoji at every point of each route, and the emoji of each
    route where it reaches the same expression."""
    curves = {}
    for route, places in routes(trait).items():
        for place in places:
            tables.add(
                "routes to a trait",
                trait=trait,
                route=route,
                strength=place.strength,
                expression=place.expression,
                answers_with_emoji=place.emoji,
                answers=place.n_answers,
            )
        tables.add(
            f"emoji where a route reaches expression {EQUAL_EXPRESSION:g}",
            trait=trait,
            route=route,
            answers_with_emoji=emoji_at(EQUAL_EXPRESSION, places),
        )
        assert all(0 <= place.emoji <= 1 for place in places)
        curves[route] = ([at.expression for at in places], [at.emoji for at in places])
    emo_run.figure(
        f"routes-{trait}",
        scatter(
            curves,
            x="trait expression",
            y="answers with emoji",
            title=f"routes to {trait}",
            line=True,
        ),
        title=f"routes to {trait}",
    )

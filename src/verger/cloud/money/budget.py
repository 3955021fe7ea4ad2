"""An AWS Budget: somebody is told when the account's month becomes expensive."""

from contextlib import suppress
from typing import Any

from verger.store.errors import aws_errors


def budget_name(region: str) -> str:
    """Of the budget of one region's stack: budgets have no region, and two stacks may have one."""
    return f"verger-{region}"


ALARMS = (("ACTUAL", 50.0), ("ACTUAL", 100.0), ("FORECASTED", 100.0))
"""What of the month's costs, and per cent of the limit."""


def set_budget(session: Any, account: str, email: str, monthly_usd: float) -> None:
    """Make the budget anew, for all costs of the account, with an alarm by e-mail.

    AWS Budgets has one endpoint for the whole world; it sees costs and the address, no image.

    Args:
        session: a session of boto3, for the region of the stack.
        account: its number.
        email: who is told.
        monthly_usd: the limit, in US dollars a month.

    Raises:
        SetupError: AWS refuses.
    """
    delete_budget(session, account)
    with aws_errors("make the budget"):
        session.client("budgets").create_budget(
            AccountId=account,
            Budget={
                "BudgetName": budget_name(session.region_name),
                "BudgetType": "COST",
                "TimeUnit": "MONTHLY",
                "BudgetLimit": {"Amount": f"{monthly_usd:.2f}", "Unit": "USD"},
            },
            NotificationsWithSubscribers=[
                {
                    "Notification": {
                        "NotificationType": what,
                        "ComparisonOperator": "GREATER_THAN",
                        "Threshold": percent,
                    },
                    "Subscribers": [{"SubscriptionType": "EMAIL", "Address": email}],
                }
                for what, percent in ALARMS
            ],
        )


def delete_budget(session: Any, account: str) -> None:
    """Take the budget away, if there is one.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("budgets")
    with aws_errors("delete the budget"), suppress(client.exceptions.NotFoundException):
        client.delete_budget(AccountId=account, BudgetName=budget_name(session.region_name))

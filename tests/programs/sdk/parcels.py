"""Parcels: dataclasses with nested fields and defaults, a logger of its own, functions added one after the other."""

import decimal
from dataclasses import dataclass, field
from typing import Dict, List, Optional

from compute_modules import add_functions, start_compute_module
from compute_modules.context import QueryContext
from compute_modules.logging import get_logger

logger = get_logger(__name__)
logger.setLevel("INFO")

RATES = {"DE": decimal.Decimal("4.20"), "FR": decimal.Decimal("5.10")}


@dataclass
class Parcel:
    weight_kg: float
    country: str = "DE"


@dataclass
class Shipment:
    parcels: List[Parcel]
    express: bool = False
    labels: Dict[str, str] = field(default_factory=dict)
    note: Optional[str] = None


def postage(context: QueryContext, event: Shipment) -> str:
    logger.info("pricing %d parcels", len(event.parcels), params={"express": event.express})
    price = sum(RATES[each.country] * decimal.Decimal(str(each.weight_kg)) for each in event.parcels)
    return str(price * 2 if event.express else price)


def countries(context=None, event=None) -> List[str]:
    return sorted(RATES)


def job(context: QueryContext, event) -> str:
    return context.jobId


if __name__ == "__main__":
    add_functions(postage, countries, job)
    start_compute_module()

"""A plugin that imports the module with our engine, as one with a listener that writes to that database does."""

import warehouse
from airflow.plugins_manager import AirflowPlugin


class Ours(AirflowPlugin):
    name = "ours"
    engine = warehouse.engine

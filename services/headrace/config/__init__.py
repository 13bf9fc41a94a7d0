"""What can be set, and where each value came from: defaults < headrace.toml < environment < options and --set."""

from headrace.config.loading import Loaded, SettingsError, file_of, load_settings
from headrace.config.settings import AdminSettings, LogSettings, Settings, TopicsSettings, TracingSettings

__all__ = [
    "AdminSettings",
    "Loaded",
    "LogSettings",
    "Settings",
    "SettingsError",
    "TopicsSettings",
    "TracingSettings",
    "file_of",
    "load_settings",
]

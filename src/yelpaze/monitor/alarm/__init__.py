"""Transitions to alarms: thresholds, groups, muting, reminders, texts."""

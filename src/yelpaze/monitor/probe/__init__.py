"""The probe of a location: when checks are due, how each kind is made, what is published."""

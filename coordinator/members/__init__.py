"""Who belongs to the consortium: founding, enrolment, changes of the roster, and what institutions approve."""

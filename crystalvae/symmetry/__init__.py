"""Space groups: tables, standardisation, canonical form, completion."""

"""Figures and tables from results, shared by notebooks and explorer: pure data in, a Figure or a DataFrame out."""

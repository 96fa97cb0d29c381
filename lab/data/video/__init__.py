"""From street videos and person boxes to a store of crops, as LUPerson was made (paper, section 3)."""

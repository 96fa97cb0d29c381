"""Results as pictures with crops (`figures`), curves (`curves`) and tables (`tables`), shared by notebooks and explorer.

Pure data in, a Figure or a DataFrame out; nothing here needs torch.
"""

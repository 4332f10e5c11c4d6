"""How networks over modalities are trained, for fusion, alignment and generation alike."""

from hypothesis import settings

settings.register_profile("ddbench", deadline=None)  # a machine that others use too has slow moments
settings.load_profile("ddbench")

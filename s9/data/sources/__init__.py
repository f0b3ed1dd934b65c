"""The image sets: what each option of conf/data loads."""

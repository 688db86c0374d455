"""The group half of the SDK.

`consumer` is what users hold; `session` is the membership, over as many streams as it takes;
`places` knows, purely, what each owned partition has received, handed over and committed; `seeks`
moves them; `commits` gathers commits.
"""

"""An invented shop whose shoppers' motivations are known, because they were planted."""

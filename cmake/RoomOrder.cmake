# The rooms of src/ and include/clip_lora/, lowest first: a room may include only rooms before it.
set(CLIP_LORA_ROOM_ORDER core io text image ops model lora data engine train cli)
